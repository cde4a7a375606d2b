import http.client
import json
import logging
import os
import socket
import sys
import threading
import unittest
import wsgiref.simple_server

from apikeys import PUBLIC, Client, asgi, wsgi

sys.path.insert(0, os.path.dirname(__file__))
from server import Server  # noqa: E402

try:
    import fastapi
    import flask
    import uvicorn
    import werkzeug.serving
except ImportError:
    if os.environ.get("CI") == "true":
        raise
    fastapi = flask = None


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args):
        pass


class Framework:
    """An API that is served until close is called."""

    def __init__(self, port, close):
        self.port, self.close = port, close


def of_wsgi(client, **settings):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        owner = "public" if environ["PATH_INFO"] == "/open" else wsgi.verified(environ).key["owner_id"]
        return [json.dumps({"owner": owner}).encode()]

    protected = wsgi.Middleware(app, client, lambda environ: PUBLIC if environ["PATH_INFO"] == "/open" else ["products.read"], **settings)
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, protected, handler_class=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return Framework(server.server_port, lambda: (server.shutdown(), server.server_close()))


def of_flask(client, **settings):
    from apikeys.flask import protect, verified

    requires = protect(client, **settings)
    app = flask.Flask("x")

    @app.post("/products")
    @requires("products.read")
    def products():
        return {"owner": verified().key["owner_id"]}

    @app.get("/open")
    def free():
        return {"owner": "public"}

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = werkzeug.serving.make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return Framework(server.server_port, lambda: (server.shutdown(), server.server_close()))


def serve_asgi(app):
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", proxy_headers=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()

    def close():
        server.should_exit = True
        thread.join()
        listener.close()

    return Framework(listener.getsockname()[1], close)


def of_asgi(client, **settings):
    async def app(scope, receive, send):
        owner = "public" if scope["path"] == "/open" else asgi.verified(scope).key["owner_id"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps({"owner": owner}).encode()})

    return serve_asgi(asgi.Middleware(app, client, lambda scope: PUBLIC if scope["path"] == "/open" else ["products.read"], **settings))


def of_fastapi(client, **settings):
    from apikeys.fastapi import protect

    requires = protect(client, **settings)
    app = fastapi.FastAPI()

    @app.post("/products")
    def products(verified=fastapi.Depends(requires("products.read"))):
        return {"owner": verified.key["owner_id"]}

    @app.get("/open")
    def free():
        return {"owner": "public"}

    return serve_asgi(app)


class Middlewares(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.close)
        cls.keys = Client(cls.server.url, cls.server.create(scopes=["api_keys.verify"])["secret"])
        cls.addClassCleanup(cls.keys.close)

    def make(self, **key):
        return self.server.create(**{"scopes": ["products.read"], **key})["secret"]

    def post(self, port, headers, method="POST", path="/products"):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.putrequest(method, path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.putheader("Content-Length", "0")
        connection.endheaders()
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, json.loads(body) if body else None

    def check(self, start, own_body=True):
        good, near = self.make(owner_id="anna"), self.make(ip_allow_list=["127.0.0.1"])
        far, narrow = self.make(ip_allow_list=["203.0.113.7"]), self.make(scopes=["invoices.read"])
        busy = self.make(rate_limit={"requests": 1, "window_seconds": 3600})
        app = start(self.keys)
        self.addCleanup(app.close)
        for name, headers, want, fields in [
            ("no key", [], 401, {"www-authenticate": r'^Bearer realm="api"$'}),
            ("junk", [("Authorization", "Bearer junk")], 401, {"www-authenticate": 'error="invalid_token"'}),
            ("a good key", [("Authorization", f"Bearer {good}")], 200, {}),
            ("in X-API-Key", [("X-API-Key", good)], 200, {}),
            ("two that differ", [("X-API-Key", good), ("Authorization", near)], 401, {}),
            ("two lines that differ", [("X-API-Key", good), ("X-API-Key", near)], 401, {}),
            ("another scope", [("X-API-Key", narrow)], 403, {"www-authenticate": 'scope="products.read"'}),
            ("its address", [("X-API-Key", near)], 200, {}),
            ("another address", [("X-API-Key", far)], 403, {}),
            ("what a client says", [("X-API-Key", far), ("X-Forwarded-For", "203.0.113.7")], 403, {}),
            ("the first of one", [("X-API-Key", busy)], 200, {"x-ratelimit-remaining": "^0$", "ratelimit-policy": '^"rate";q=1;w=3600$'}),
            ("the second of one", [("X-API-Key", busy)], 429, {"retry-after": "^3[56]", "x-ratelimit-limit": "^1$"}),
        ]:
            with self.subTest(name):
                status, got, body = self.post(app.port, headers)
                self.assertEqual(status, want, body)
                for field, pattern in fields.items():
                    self.assertRegex(got.get(field, ""), pattern)
                if status == 200:
                    self.assertIn("owner", body)
                else:
                    self.assertEqual(got["cache-control"], "no-store")
                    self.assertRegex(got["content-type"], "^application/json")
                    if own_body:
                        self.assertEqual(body["status"], status)
        self.assertEqual(self.post(app.port, [("Authorization", good)])[2], {"owner": "anna"})
        self.assertEqual(self.post(app.port, [], "GET", "/open")[2], {"owner": "public"})

        behind = start(self.keys, trusted_proxies=["127.0.0.0/8"], cost=lambda request: 2)
        self.addCleanup(behind.close)
        self.assertEqual(self.post(behind.port, [("X-API-Key", far), ("X-Forwarded-For", "198.51.100.1, 203.0.113.7")])[0], 200)
        self.assertEqual(self.post(behind.port, [("X-API-Key", far), ("X-Forwarded-For", "203.0.113.7, 198.51.100.1")])[0], 403)
        three = self.make(rate_limit={"requests": 3, "window_seconds": 3600})
        self.assertEqual(self.post(behind.port, [("X-API-Key", three)])[1]["x-ratelimit-remaining"], "1")

        alone = start(Client("http://127.0.0.1:1", "t"))
        self.addCleanup(alone.close)
        with self.assertLogs("apikeys") as logs:
            status, got, _ = self.post(alone.port, [("X-API-Key", good)])
        self.assertEqual((status, got["retry-after"]), (503, "1"))
        self.assertNotIn(good, "".join(logs.output))

    def test_wsgi(self):
        self.check(of_wsgi)

    @unittest.skipUnless(flask, "Flask and FastAPI are not installed")
    def test_flask(self):
        self.check(of_flask)

    @unittest.skipUnless(flask, "Flask and FastAPI are not installed")
    def test_asgi(self):
        self.check(of_asgi)

    @unittest.skipUnless(flask, "Flask and FastAPI are not installed")
    def test_fastapi(self):
        self.check(of_fastapi, own_body=False)


if __name__ == "__main__":
    unittest.main()
