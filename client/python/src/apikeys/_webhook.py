"""Verifies the deliveries of webhooks, by the signature of Standard Webhooks."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from typing import Any, Mapping, Optional, Union

from ._errors import WebhookError

#: How many seconds the clocks of sender and receiver may be apart.
TOLERANCE_SECONDS = 300


def verify_webhook(secret: str, headers: Mapping[str, str], body: Union[bytes, str], now: Optional[float] = None) -> Any:
    """Verifies a delivery and returns what its body holds.

    It is one where it was signed with secret, the text that begins with whsec_, within
    five minutes of now (seconds since 1970). body is what was received, byte for byte. It
    raises WebhookError for anything else.

    A delivery can come more than once, always with the same webhook-id. A receiver for
    which that matters remembers those ids.
    """
    key = b""
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret[len("whsec_"):], validate=True)
        except (binascii.Error, ValueError):
            pass
    if not 24 <= len(key) <= 64:
        raise WebhookError("the secret is not whsec_ and the base64 of 24 to 64 bytes")
    found = {name.lower(): value for name, value in headers.items()}
    identifier, timestamp, signatures = (found.get(name, "") for name in ("webhook-id", "webhook-timestamp", "webhook-signature"))
    if not (identifier and timestamp and signatures):
        raise WebhookError("the request lacks webhook-id, webhook-timestamp or webhook-signature")
    if not re.fullmatch(r"0|[1-9][0-9]{0,14}", timestamp, re.ASCII) or abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE_SECONDS:
        raise WebhookError("webhook-timestamp is not a time within five minutes of now")
    raw = body.encode() if isinstance(body, str) else bytes(body)
    signed = f"{identifier}.{timestamp}.".encode() + raw
    want = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    for signature in signatures.split()[:16]:
        if hmac.compare_digest(signature.encode("utf-8", "replace"), want):
            return json.loads(raw)
    raise WebhookError("no signature fits the body and the secret")
