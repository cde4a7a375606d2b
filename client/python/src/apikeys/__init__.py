"""Asks an apikeys server about API keys, with the standard library alone.

Nothing is cached: a revocation that the server has answered is in force for the next
request. No error holds a key or a token.
"""

from ._client import Client, Verification
from ._errors import RefusedError, StreamError, UnverifiedError, WebhookError
from ._protect import PUBLIC
from ._webhook import verify_webhook

__all__ = [
    "PUBLIC",
    "Client",
    "RefusedError",
    "StreamError",
    "UnverifiedError",
    "Verification",
    "WebhookError",
    "verify_webhook",
]
