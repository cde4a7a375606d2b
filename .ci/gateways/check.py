"""Sends requests through a gateway, as a client that is out to cheat would, and sees what
reaches the API behind it: check.py NAME PORT REST_URL TOKEN STEP"""
import http.client
import json
import os
import socket
import sys
import urllib.parse
import urllib.request

name, port, rest, token, step = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
failed = []


def fail(what, *got):
    failed.append(what)
    print("FAIL %s: %s: %s" % (name, what, " ".join(map(str, got))))


def api(path, body):
    request = urllib.request.Request(
        rest + "/developers/" + path, json.dumps(body).encode(),
        {"Authorization": "Bearer " + token, "Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


def make(**fields):
    return api("api_keys", {"label": name, **fields})


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers = status, headers
        self.reached = headers.get("X-Upstream") == "reached"
        self.seen = json.loads(body) if self.reached and body else {}
        self.body = body

    def sent(self, header):
        """What the API was sent under a name, in any spelling that it may take for it."""
        return [v for k, v in self.seen.get("headers", []) if k.lower().replace("_", "-") == header]


def send(lines, version="HTTP/1.1", host=True):
    """Sends the lines of a request as they are, from 127.0.0.2."""
    with socket.create_connection(("127.0.0.1", port), timeout=30, source_address=("127.0.0.2", 0)) as s:
        first, headers = lines[0], list(lines[1:])
        if host:
            headers.insert(0, "Host: api.example.test")
        if not any(h.lower().startswith("connection:") for h in headers):
            headers.append("Connection: close")
        s.sendall(("\r\n".join([first + " " + version] + headers) + "\r\n\r\n").encode("latin-1"))
        response = http.client.HTTPResponse(s, method=first.split(" ")[0])
        try:
            response.begin()
            body = response.read()
        except (http.client.HTTPException, ConnectionError):
            return Answer(0, {}, b"")
        return Answer(response.status, response.headers, body)


def get(path, key=None, *headers, method="GET", **more):
    lines = [method + " " + path]
    if key:
        lines.append("Authorization: Bearer " + key["secret"])
    return send(lines + list(headers), **more)


def expect(what, answer, status, code=None):
    if answer.status != status or answer.reached != (status == 200):
        fail(what, "got", answer.status, "reached" if answer.reached else "", "want", status, answer.body[:200])
    if code and answer.headers.get("X-Api-Key-Error", code) != code:
        fail(what, "the code is", answer.headers.get("X-Api-Key-Error"))


IDENTITY = ["x-api-key-id", "x-organization-id", "x-api-key-scopes", "x-api-key-owner", "x-api-key-label"]


def check_identity(what, answer, key):
    """Exactly what is true of the key reached the API, once each."""
    want = {"x-api-key-id": key["id"], "x-organization-id": key["organization_id"], "x-api-key-scopes": " ".join(key["scopes"]),
            "x-api-key-owner": key["owner_id"] or "", "x-api-key-label": key["label"]}
    for header in IDENTITY:
        got = answer.sent(header)
        if got not in ([want[header]], [] if want[header] == "" else [want[header]]):
            fail(what, header, "is", got, "want", want[header])
    if [v for v in answer.sent("x-api-key-error") if v]:
        fail(what, "the API was sent an error")


def basics():
    good = make(scopes=["products.read"], owner_id="anna")
    owned = make(scopes=["products.read"])  # has no owner
    expect("no key", get("/products"), 401)
    if not get("/products").headers.get("WWW-Authenticate", "").startswith("Bearer"):
        fail("no key", "there is no WWW-Authenticate")
    expect("junk", get("/products", {"secret": "junk"}), 401)
    answer = get("/products?a=b%20c", good)
    expect("a good key", answer, 200)
    check_identity("a good key", answer, good)
    if answer.seen.get("path") != "/products?a=b%20c" or answer.seen.get("method") != "GET":
        fail("a good key", "the API was asked", answer.seen)
    expect("in X-API-Key", get("/products", None, "X-API-Key: " + good["secret"]), 200)
    expect("two that differ", get("/products", good, "X-API-Key: " + owned["secret"]), 401)
    expect("two lines that differ", get("/products", None, "X-API-Key: " + good["secret"], "X-API-Key: junk"), 401)
    expect("a key of 512 KB", get("/products", {"secret": "k" * (512 << 10)}), get("/products", {"secret": "k" * (512 << 10)}).status)
    if get("/products", {"secret": "k" * (512 << 10)}).reached:
        fail("a key of 512 KB", "reached the API")
    long = make(scopes=["products.read"], label="\U0001f511" * 255, owner_id="\U0001f511" * 255)
    expect("a key of which much is to be told", get("/products", long), 200)
    body = send(["POST /products", "Authorization: Bearer " + good["secret"], "Content-Length: 0"])
    expect("another method", body, 403)

    near, far = make(scopes=["products.read"], ip_allow_list=["127.0.0.2"]), make(scopes=["products.read"], ip_allow_list=["203.0.113.7"])
    expect("from its address", get("/products", near), 200)
    for header in ["X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 203.0.113.7, 127.0.0.1", "X-Real-IP: 203.0.113.7", "Forwarded: for=203.0.113.7",
                   "X_Forwarded_For: 203.0.113.7", "x-forwarded-for: 203.0.113.7\r\nX-Forwarded-For: 203.0.113.7",
                   "Connection: close, X-Forwarded-For"]:
        expect("from another, with " + header, get("/products", far, header), 403)
        expect("from its own, with " + header, get("/products", near, header), 200)

    limited = make(scopes=["products.read"], rate_limit={"requests": 1, "window_seconds": 3600})
    expect("the first of one", get("/products", limited), 200)
    answer = get("/products", limited)
    expect("the second of one", answer, 429)
    if not (answer.headers.get("Retry-After") or "").isdigit() or 'r=0' not in (answer.headers.get("RateLimit") or ""):
        fail("the second of one", "headers are", answer.headers)
    spent = make(scopes=["products.read"], quota={"limit": 1, "refill": "none"})
    expect("the last of a quota", get("/products", spent), 200)
    expect("beyond the quota", get("/products", spent), 429)

    for _ in range(5):
        gone = make(scopes=["products.read"])
        expect("before its revocation", get("/products", gone), 200)
        api("api_keys/" + gone["id"] + "/revoke", {"reason": "key_compromise"})
        expect("after its revocation", get("/products", gone), 401)


def smuggle():
    key = make(scopes=["products.read"])  # has no owner, so that an owner is the client's
    spellings = []
    for header in IDENTITY + ["x-api-key-error"]:
        words = header.split("-")
        spellings += [header, header.upper(), header.title(), "_".join(words), words[0] + "_" + "-".join(words[1:]),
                      "-".join(words[:-1]) + "_" + words[-1], "_".join(words).upper()]
    for spelling in spellings:
        for lines in ([spelling + ": evil"], [spelling + ": evil", spelling + ": evil2"],
                      [spelling + ": evil", "Connection: close, " + spelling], ["Connection: " + spelling, spelling + ": evil"]):
            answer = get("/products", key, *lines)
            if answer.status == 400 and not answer.reached:
                continue  # A gateway may refuse such a request.
            expect(" and ".join(lines), answer, 200)
            check_identity(" and ".join(lines), answer, key)
    for header in IDENTITY:
        answer = get("/products", key, "Connection: keep-alive, " + header + ", close")
        expect("Connection: " + header, answer, 200)
        check_identity("Connection: " + header, answer, key)
    # What asks to be taken for another method must not be kept from apikeys alone.
    for lines in (["X-HTTP-Method-Override: DELETE"], ["X-HTTP-Method-Override: DELETE", "Connection: close, X-HTTP-Method-Override"]):
        answer = get("/products", key, *lines)
        if answer.reached and answer.sent("x-http-method-override"):
            fail(" and ".join(lines), "reached the API")
    for lines in (["X-Original-URL: /admin"], ["X-Rewrite-URL: /admin"], ["X-Rewrite-URL: /admin", "Connection: close, X-Rewrite-URL"], ["X_Rewrite_URL: /admin"]):
        answer = get("/products", key, *lines)
        if answer.reached and (answer.sent("x-original-url") or answer.sent("x-rewrite-url")):
            fail(" and ".join(lines), "reached the API")
    for lines in (["X-Forwarded-Uri: /products"], ["X-Forwarded-Method: GET"], ["X-Original-URI: /products"], ["X-Original-URL: /products"],
                  ["X-Forwarded-Uri: /products", "Connection: close, X-Forwarded-Uri"]):
        if get("/admin", key, *lines).reached:
            fail("/admin with " + " and ".join(lines), "reached the API")
        if send(["DELETE /products", "Authorization: Bearer " + key["secret"]] + lines).reached:
            fail("DELETE /products with " + " and ".join(lines), "reached the API")


def means_admin(path):
    """Whether some server would take a path for one below /admin."""
    for _ in range(3):
        path = urllib.parse.unquote(path.split("?")[0].split("#")[0])
    path = path.replace("\\", "/").lower()
    parts = []
    for part in path.split("/"):
        part = part.split(";")[0].rstrip(". \0") if part not in (".", "..") else part
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return parts[:1] == ["admin"]


def bypass():
    key = make(scopes=["products.read"])
    for path in [
        "/admin", "/admin/", "/admin/x", "/ADMIN", "/Admin/x", "//admin", "///admin//x", "/./admin", "/products/../admin", "/products/..%2fadmin",
        "/products/%2e%2e/admin", "/products/%2E%2E%2Fadmin", "/products/.%2e/admin", "/products/..%252fadmin", "/products/%252e%252e/admin",
        "/products/..;/admin", "/products/..;x=1/admin", "/admin;x", "/admin;/x", "/%61dmin", "/%61%64min/x", "/admin%2fx", "/admin%00", "/admin%20",
        "/admin.", "/products\\..\\admin", "/products/..%5cadmin", "/\\admin", "/admin?x=/products", "/admin#/products", "/products/..//admin",
        "/products/%c0%ae%c0%ae/admin", "/products/../../admin", "/products/x/../../admin", "/%2fadmin", "/%2e/admin",
        "http://api.example.test/admin", "http://api.example.test//admin", "HTTP://api.example.test/products/../admin",
    ]:
        for method in ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PROPFIND", "get", "FOO"]:
            answer = send([method + " " + path, "Authorization: Bearer " + key["secret"], "Content-Length: 0"])
            if answer.reached and (method == "HEAD" or means_admin(answer.seen.get("path", "/admin"))):
                fail(method + " " + path, "reached the API as", answer.seen.get("path"))
        for version in ["HTTP/1.0"]:
            if get(path, key, version=version).reached and means_admin(path):
                fail(version + " " + path, "reached the API")
    for method in ["POST", "DELETE", "PUT", "PATCH", "PROPFIND", "get", "Get", "GETT", "TRACE", "OPTIONS", "CONNECT"]:
        answer = send([method + " /products", "Authorization: Bearer " + key["secret"], "Content-Length: 0"])
        if answer.reached:
            fail(method + " /products", "reached the API")
    expect("HEAD", get("/products", key, method="HEAD"), 200)
    expect("a rule that there is not", get("/elsewhere", key), 403)
    for lines in (["Upgrade: websocket", "Connection: Upgrade"], ["Expect: 100-continue"], ["Transfer-Encoding: identity"], ["Range: bytes=0-1"],
                  ["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"]):
        if get("/admin", key, *lines).reached or get("/products", None, *lines).reached:
            fail("with " + " and ".join(lines), "reached the API")
    for path in ["/.apikeys", "/forward_auth", "/_apikeys"]:
        if get(path, key).reached or get(path).status == 200:
            fail(path, "is open")


def down():
    answer = get("/products", {"secret": "sk_live_0123"})
    if answer.reached or answer.status < 500:
        fail("while apikeys is down", answer.status)
    print("%s: while apikeys is down, %d" % (name, answer.status))


{"up": lambda: (basics(), smuggle(), bypass()), "down": down}[step]()
if failed:
    sys.exit("%s: %d checks failed" % (name, len(failed)))
print("%s: %s holds" % (name, step))
