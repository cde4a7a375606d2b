"""What all clients must agree about: client/testdata/cases.json is made from the server's own rules."""

import datetime
import json
import os
import random
import unittest

from apikeys import RefusedError, Verification
from apikeys._errors import refusal_of
from apikeys._protect import limit_headers
from apikeys._request import client_address, key_of, parse_networks

with open(os.path.join(os.path.dirname(__file__), "..", "..", "testdata", "cases.json"), encoding="utf-8") as f:
    CASES = json.load(f)


class Cases(unittest.TestCase):
    def test_refusals(self):
        for c in CASES["refusals"]:
            with self.subTest(c["code"]):
                key = None if c["held"] is None else {"scopes": c["held"]}
                scopes = c["scopes"] or []
                e = refusal_of(Verification(False, c["code"], key, {"limit": c["limit"]}, {"limit": c["quota"]}), scopes)
                self.assertEqual([e.status, e.reason, str(e), e.challenge("api", scopes) or ""], [c["status"], c["reason"], c["message"], c["challenge"]])
        self.assertEqual(refusal_of(Verification(False, "valid", None), []).status, 401)
        self.assertIsNone(refusal_of(Verification(True, "valid", None), []))

    def test_credentials(self):
        for c in CASES["credentials"]:
            with self.subTest(c):
                lines = {"authorization": c["authorization"] or [], "x-api-key": c["x_api_key"] or []}
                key, challenge = "", ""
                try:
                    key = key_of(["Authorization", "X-API-Key"], lines.__getitem__)
                except RefusedError as e:
                    challenge = e.challenge("api")
                self.assertEqual([key, challenge], [c["key"], c["challenge"]])

    def test_addresses(self):
        trusted = parse_networks(["10.0.0.0/8", "2001:db8:1::/48"])
        for c in CASES["addresses"]:
            with self.subTest(c):
                self.assertEqual(client_address(c["peer"], c["forwarded_for"] or [], trusted) or "", c["address"])
        for text in ("", "10.0.0.0/33", "10/8", "::/129", "x"):
            with self.assertRaises(ValueError, msg=text):
                parse_networks([text])
        with self.assertRaises(TypeError):
            parse_networks("10.0.0.0/8")

    def test_limits(self):
        now = datetime.datetime(2026, 11, 21, tzinfo=datetime.timezone.utc)

        def status(s, name):
            if s is None:
                return None
            at = None if s["seconds"] < 0 else (now + datetime.timedelta(seconds=s["seconds"])).strftime("%Y-%m-%d %H:%M:%S")
            return {"limit": s["limit"], "remaining": s["remaining"], name: at}

        for c in CASES["limits"]:
            key = {"rate_limit": c["rate_limit"] and {"window_seconds": c["window_seconds"]}, "quota": c["quota"] and {"refill": c["refill"]}}
            got = limit_headers(Verification(True, "valid", key, status(c["rate_limit"], "reset_at"), status(c["quota"], "refill_at")), now.timestamp())
            self.assertEqual({name.lower(): value for name, value in got.items()}, c["headers"])

    # Whatever anybody sends, nothing is read that the request does not hold, and
    # nothing but a refusal is raised.
    def test_random_headers(self):
        alphabet = ["Bearer ", "bearer", " ", ",", ":", "10.0.0.1", "::1", "[", "]", "%", "secret-token:", "\t", "\xff", "a", "0", ".", "/", "\u0661", '"']
        r = random.Random(1)
        trusted = parse_networks(["10.0.0.0/8"])
        for _ in range(20_000):
            a, b, forwarded = ("".join(r.choices(alphabet, k=r.randrange(8))) for _ in range(3))
            try:
                key = key_of(["Authorization", "X-API-Key"], lambda name: [a if name == "authorization" else b])
                self.assertTrue(key and (key in a or key in b))
            except RefusedError as e:
                self.assertNotRegex(e.challenge("api"), r"[\r\n]")
            self.assertEqual(client_address("192.0.2.1", [forwarded], trusted), "192.0.2.1")
            client_address("10.0.0.1", [forwarded, a], trusted)


if __name__ == "__main__":
    unittest.main()
