// Starts Swagger UI. Nothing of it leaves this server: it validates nowhere, takes no
// settings from the address, and keeps no credential.
(() => {
  const calls = document.documentElement.dataset.calls === "yes";
  const none = () => () => null;
  window.ui = SwaggerUIBundle({
    url: "openapi.json",
    dom_id: "#reference",
    deepLinking: true,
    docExpansion: "list",
    filter: true,
    defaultModelsExpandDepth: 0,
    validatorUrl: null,
    queryConfigEnabled: false,
    persistAuthorization: false,
    tryItOutEnabled: calls,
    supportedSubmitMethods: calls ? ["get", "put", "post", "delete", "patch"] : [],
    // Without calls there is nothing to type a credential for.
    plugins: calls ? [] : [{ wrapComponents: { authorizeBtn: none, authorizeOperationBtn: none } }],
  });
})();
