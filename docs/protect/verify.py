"""Asks apikeys whether a key is good: what flask_app.py and fastapi_app.py share."""

import json
import os
import sys
import urllib.request

URL = os.environ.get("APIKEYS_URL", "http://127.0.0.1:8080")
VERIFIER = os.environ.get("APIKEYS_KEY", "")  # a key with the scope api_keys.verify and no other
REFUSALS = {"ip_not_allowed": 403, "insufficient_scope": 403, "rate_limited": 429, "quota_exceeded": 429}


def verify(headers, ip, scopes):
    """Returns (200, key, None) for a request that may pass, else (status, None, seconds to wait).

    No answer is no permission.
    """
    secret = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("x-api-key", "")
    request = urllib.request.Request(
        URL + "/developers/api_keys/verify",
        json.dumps({"key": secret, "scopes": scopes, "ip": ip}).encode(),
        {"Authorization": "Bearer " + VERIFIER, "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=2) as response:
            data = json.load(response)["data"]
    except (OSError, ValueError) as error:
        print("verify:", error, file=sys.stderr)
        return 503, None, None
    if data["valid"]:
        return 200, data["api_key"], None
    return REFUSALS.get(data["code"], 401), None, data["retry_after_seconds"]


def refusal_headers(status, seconds):
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if seconds:
        headers["Retry-After"] = str(seconds)
    return headers
