import http.server
import json
import os
import socket
import sys
import threading
import time
import unittest
import unittest.mock

from apikeys import Client, RefusedError, StreamError, UnverifiedError, WebhookError, verify_webhook

sys.path.insert(0, os.path.dirname(__file__))
from server import Server  # noqa: E402

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
NOW = 1614265330
HEADERS = {
    "Webhook-Id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


class Webhooks(unittest.TestCase):
    def test_genuine(self):
        self.assertEqual(verify_webhook(SECRET, HEADERS, BODY, NOW), {"test": 2432232314})
        self.assertTrue(verify_webhook(SECRET, {**HEADERS, "webhook-signature": "v1,AAAA v1a,x " + HEADERS["webhook-signature"]}, BODY.decode(), NOW))

    def test_not_genuine(self):
        for name, args in {
            "the body": (SECRET, HEADERS, BODY + b" ", NOW),
            "the secret": ("whsec_" + "A" * 44, HEADERS, BODY, NOW),
            "no secret": ("", HEADERS, BODY, NOW),
            "no prefix": (SECRET[6:], HEADERS, BODY, NOW),
            "the id": (SECRET, {**HEADERS, "Webhook-Id": "x"}, BODY, NOW),
            "no signature": (SECRET, {**HEADERS, "webhook-signature": ""}, BODY, NOW),
            "another version": (SECRET, {**HEADERS, "webhook-signature": "v2" + HEADERS["webhook-signature"][2:]}, BODY, NOW),
            "not ASCII": (SECRET, {**HEADERS, "webhook-signature": "v1,\xff"}, BODY, NOW),
            "too late": (SECRET, HEADERS, BODY, NOW + 301),
            "too early": (SECRET, HEADERS, BODY, NOW - 301),
            "no time": (SECRET, {**HEADERS, "webhook-timestamp": "1614265330.0"}, BODY, NOW),
        }.items():
            with self.subTest(name), self.assertRaises(WebhookError) as caught:
                verify_webhook(*args)
            self.assertNotIn("MfKQ", str(caught.exception))


def answering(handle):
    """Returns a server of which handle answers each request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            handle(self)

        do_GET = do_POST

        def log_message(self, *args):
            pass

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            pass  # The client has gone, as it should.

    server = Quiet(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def answer(handler, status, body):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


class Clients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.close)
        cls.keys = Client(cls.server.url, cls.server.create(scopes=["api_keys.verify"])["secret"])
        cls.addClassCleanup(cls.keys.close)

    def test_good(self):
        key = self.server.create(owner_id="anna", scopes=["products.read"], quota={"limit": 10, "refill": "none"})
        v = self.keys.verify(key["secret"], ["products.read"], address="192.0.2.1", cost=3, user_agent="x" * 5000)
        self.assertEqual((v.key["id"], v.key["owner_id"], v.quota["remaining"]), (key["id"], "anna", 7))
        self.assertNotIn(key["secret"], repr(v))

    def test_revocation_is_in_force_at_once(self):
        for _ in range(10):
            key = self.server.create()
            self.keys.verify(key["secret"], cost=0)
            self.server.call(f"api_keys/{key['id']}/revoke")
            with self.assertRaises(RefusedError) as caught:
                self.keys.verify(key["secret"])
            self.assertEqual((caught.exception.code, caught.exception.status), ("revoked", 401))

    def test_costs(self):
        key = self.server.create(quota={"limit": 2, "refill": "none"})["secret"]
        with self.assertRaises(RefusedError) as caught:
            self.keys.verify(key, cost=3)
        self.assertEqual((caught.exception.status, caught.exception.retry_after), (429, None))
        with self.assertRaises(UnverifiedError):
            self.keys.verify(key, cost=-1)

    def test_odd_keys(self):
        for key in ("", " ", "junk", "a" * 100_000, "\ud800", "\xff", "a\nb", "\u2028"):
            with self.assertRaises(RefusedError) as caught:
                self.keys.verify(key)
            self.assertEqual(caught.exception.status, 401)

    def test_odd_user_agents(self):
        key = self.server.create()["secret"]
        for agent in ("\ud800", "a\udfffb" * 600, "\xff", "\U0001f600" * 2000):
            self.assertTrue(self.keys.verify(key, user_agent=agent).valid)

    def test_many_threads(self):
        key, failed = self.server.create()["secret"], []

        def ask():
            try:
                for _ in range(20):
                    self.keys.verify(key, cost=0)
            except Exception as e:
                failed.append(e)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failed, [])

    def test_fails_closed(self):
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        servers = [
            answering(lambda h: answer(h, 200, b"<html>")),
            answering(lambda h: answer(h, 200, b'{"data":null}')),
            answering(lambda h: answer(h, 200, b"[" * 100_000)),
            answering(lambda h: answer(h, 200, b"x" * (2 << 20))),
            answering(lambda h: answer(h, 307, b"")),
        ]
        for s in servers:
            self.addCleanup(s.server_close)
            self.addCleanup(s.shutdown)
        weak = self.server.create()["secret"]
        for url, token in [("http://127.0.0.1:1", "the-token"), (f"http://127.0.0.1:{silent.getsockname()[1]}", "the-token"),
                           *((f"http://127.0.0.1:{s.server_port}", "the-token") for s in servers), (self.server.url, "the-token"), (self.server.url, weak)]:
            began = time.monotonic()
            with self.subTest(url), self.assertRaises(UnverifiedError) as caught:
                Client(url, token, timeout=0.5).verify("sk_live_presented")
            self.assertLess(time.monotonic() - began, 5)
            self.assertNotIn("sk_live_presented", str(caught.exception))
            self.assertNotIn(token, str(caught.exception))

    def test_tries_again(self):
        calls = []

        def flaky(h):
            calls.append(1)
            good = json.dumps({"data": {"valid": True, "code": "valid", "api_key": {"id": "api_key_1"}}}).encode()
            answer(h, 200, good) if len(calls) == 3 else answer(h, 503, b"{}")

        server = answering(flaky)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        client = Client(f"http://127.0.0.1:{server.server_port}", "t")
        self.assertEqual(client.verify("k").key["id"], "api_key_1")
        with self.assertRaises(UnverifiedError):
            client.verify("k")
        self.assertEqual(len(calls), 6)

    def test_a_forked_process_has_connections_of_its_own(self):
        ports = []

        def handle(h):
            ports.append(h.client_address[1])
            answer(h, 503, b"{}")

        server = answering(handle)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        keys = Client(f"http://127.0.0.1:{server.server_port}", "t", attempts=1)
        self.addCleanup(keys.close)
        for pid in (1, 1, 2, 2):
            with unittest.mock.patch("os.getpid", return_value=pid), self.assertRaises(UnverifiedError):
                keys.verify("k")
        self.assertEqual((ports[0] == ports[1], ports[1] == ports[2], ports[2] == ports[3]), (True, False, True))

    def test_a_connection_that_was_closed_meanwhile(self):
        key = self.server.create()["secret"]
        self.keys.verify(key)
        self.server.restart()
        self.keys.verify(key)

    def test_faulty_settings(self):
        good = {"url": "https://keys.example.com", "token": "t"}
        for change, want in [
            ({"url": "keys"}, "url must be such as"), ({"url": "ftp://a"}, "url must be such as"), ({"url": "https://u:p@a"}, "url must not hold"),
            ({"url": "http://10.0.0.1"}, "would send the token unencrypted"), ({"url": "http://localhost:x"}, "url must be such as"),
            ({"token": ""}, "token is empty"), ({"token": "a\nb"}, "token must be"), ({"organization": "a b"}, "organization must be"),
            ({"timeout": 0}, "timeout must be"), ({"attempts": 11}, "attempts must be"),
        ]:
            with self.subTest(change), self.assertRaisesRegex(ValueError, want):
                Client(**{**good, **change})
        Client(**{**good, "url": "http://10.0.0.1", "allow_insecure": True})
        with self.assertRaises(TypeError):
            self.keys.verify("k", "products.read")


class Watches(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.close)

    # No event is missing and none comes twice, while the server stops and starts again.
    def test_restart(self):
        made, seen, lost, found = [], [], [], []
        stop = threading.Event()
        client = Client(self.server.url, self.server.token)
        made += [self.server.create()["id"], self.server.create()["id"]]
        for message in client.watch("start", types=["api_key.created"], stop=stop, on_lost=lost.append, on_found=lambda: found.append(1)):
            if "event" not in message:
                continue
            seen.append(message["event"]["resource_id"])
            if len(seen) == 2:
                self.server.restart()
                made += [self.server.create()["id"], self.server.create()["id"]]
            if len(seen) == 4:
                stop.set()
        self.assertEqual(seen, made)
        self.assertEqual((len(lost), len(found)), (1, 1))

    def test_ends(self):
        for url, token, after, status in [(self.server.url, "not-a-token", None, 401), (self.server.url, self.server.token, "forged", 400)]:
            with self.assertRaises(StreamError) as caught:
                list(Client(url, token).watch(after))
            self.assertEqual(caught.exception.status, status)

    # The cursor of a message counts once the loop is done with it, and half a line for nothing.
    def test_resumes(self):
        asked = []
        parts = [
            b'{"cursor":"a"}\n{"cursor":"b","event":{}}\n{"cursor":"c"', b"not json\n",
            b'{"status":503,"error":"Stopping.","log":{"reason":"UNAVAILABLE"}}\n',
            b'{"cursor":"d"}\n{"status":400,"error":"Too old.","log":{"reason":"CURSOR_EXPIRED","oldest":"z"}}\n',
        ]

        def handle(h):
            asked.append(h.path)
            answer(h, 200, parts[len(asked) - 1])

        server = answering(handle)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        seen = []
        with self.assertRaises(StreamError) as caught:
            for message in Client(f"http://127.0.0.1:{server.server_port}", "t").watch():
                seen.append(message["cursor"])
        self.assertEqual((caught.exception.reason, caught.exception.oldest), ("CURSOR_EXPIRED", "z"))
        self.assertEqual(seen, ["a", "b", "d"])
        self.assertEqual(["after=b" in path for path in asked], [False, True, True, True])


if __name__ == "__main__":
    unittest.main()
