"""What the holder of a key is told, by the code of the verification.

The words are the server's; tests/test_cases.py holds them against its rules.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Optional, Sequence

if TYPE_CHECKING:
    from ._client import Verification


class RefusedError(Exception):
    """Says that a key may not do what was asked.

    code is the outcome of the verification, for your own log: the client learns less from
    reason, which is the same for every key that is not good. status is the HTTP status:
    401, 403 or 429. retry_after is after how many seconds the request can be sent again,
    None where waiting does not help.
    """

    def __init__(
        self, code: str, status: int, reason: str, message: str, problem: str = "",
        verification: Optional[Verification] = None, retry_after: Optional[int] = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.reason = reason
        self.message = message
        self.verification = verification
        self.retry_after = retry_after
        self._problem = problem

    def challenge(self, realm: str = "api", scopes: Sequence[str] = ()) -> Optional[str]:
        """Returns the value of WWW-Authenticate (RFC 6750, 3), None for none."""
        start = f'Bearer realm="{_quotable(realm)}"'
        if self._problem == "missing":
            return start
        if self._problem in ("invalid_request", "invalid_token"):
            return f'{start}, error="{self._problem}", error_description="{_quotable(self.message)}"'
        if self._problem == "insufficient_scope":
            return f'{start}, error="insufficient_scope", error_description="The API key lacks a scope.", scope="{_quotable(" ".join(scopes))}"'
        return None


class UnverifiedError(Exception):
    """Says that there was no answer about a key, so that nobody is let in.

    status and reason are those of the server's answer, None where there was none;
    support_id is under what the server's log has more.
    """

    def __init__(
        self, message: str, status: Optional[int] = None, reason: Optional[str] = None,
        support_id: Optional[str] = None, retry_after: Optional[int] = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.support_id = support_id
        self.retry_after = retry_after


class StreamError(Exception):
    """Says that the server ended a stream for good: connecting again would not help.

    oldest is a cursor after which everything that is still kept follows, where the
    reason is CURSOR_EXPIRED.
    """

    def __init__(self, message: str, status: int, reason: Optional[str] = None, oldest: Optional[str] = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.oldest = oldest


class WebhookError(Exception):
    """Says why a request is no delivery that was signed with the secret about now."""


def missing() -> RefusedError:
    return RefusedError("malformed", 401, "UNAUTHENTICATED", "The request carries no API key; send one as Authorization: Bearer.", "missing")


def conflicting() -> RefusedError:
    return RefusedError("malformed", 401, "UNAUTHENTICATED", "The request carries two different credentials; send one.", "invalid_request")


def invalid(code: str = "malformed", verification: Optional[Verification] = None) -> RefusedError:
    return RefusedError(code, 401, "UNAUTHENTICATED", "The credential is not valid.", "invalid_token", verification)


def cost_too_high() -> RefusedError:
    return RefusedError("rate_limited", 429, "RATE_LIMITED", "The request costs more than the limits of the API key ever allow.")


def refusal_of(v: Verification, scopes: Sequence[str]) -> Optional[RefusedError]:
    """Returns what is said of a verification, None where the key is good."""
    if v.code == "valid" and v.valid is True:
        return None
    if v.code == "ip_not_allowed":
        return RefusedError(v.code, 403, "IP_NOT_ALLOWED", "The credential may not be used from this address.", "", v)
    if v.code == "insufficient_scope":
        held = (v.key or {}).get("scopes") or []
        lacking = [s for s in scopes if s.startswith("operator_tokens.") or not (s in held or "*" in held)]
        return RefusedError(v.code, 403, "INSUFFICIENT_SCOPE", f"The credential lacks the scope {', '.join(lacking)}.", "insufficient_scope", v)
    if v.code == "rate_limited":
        limit = (v.rate_limit or {}).get("limit", 0)
        return RefusedError(
            v.code, 429, "RATE_LIMITED", f"The API key is over its rate limit of {limit} requests; wait before trying again.", "", v, v.retry_after)
    if v.code == "quota_exceeded":
        limit = (v.quota or {}).get("limit", 0)
        return RefusedError(v.code, 429, "QUOTA_EXCEEDED", f"The API key has used up its quota of {limit}.", "", v, v.retry_after)
    return invalid(v.code, v)


def _quotable(text: str) -> str:
    """Leaves out what may not stand between quotes (RFC 6750)."""
    return re.sub(r'[^ -~]|["\\]', "", text)
