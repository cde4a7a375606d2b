"""What the middlewares of all frameworks do with a request."""

from __future__ import annotations

import datetime
import json
import logging
import math
import time
from typing import Any, Callable, Dict, NamedTuple, Optional, Sequence

from ._client import Client, Verification
from ._errors import RefusedError, UnverifiedError
from ._request import HeaderLines, client_address, key_of, parse_networks

_log = logging.getLogger("apikeys")

_UNAVAILABLE = "The key could not be checked; try again."

#: As the scopes of a request: it needs no key.
PUBLIC = object()


class Decision(NamedTuple):
    """What a request is answered, or the key that it is let through with."""

    verified: Optional[Verification]
    status: int
    headers: Dict[str, str]
    message: str = ""
    reason: str = ""

    @property
    def body(self) -> bytes:
        return json.dumps({"status": self.status, "error": self.message, "reason": self.reason}, separators=(",", ":")).encode()


class Protector:
    """Decides about requests.

    headers are where a request carries its key: in Authorization it follows Bearer or
    stands alone, in every other header it stands alone; two that differ are 401; it is
    never read from the URL, which ends in logs. trusted_proxies are the addresses of your
    own proxies, such as 10.0.0.0/8: the client's address is the connection's or, where
    that is one of these, the right-most entry of X-Forwarded-For that is not one. cost is
    what a request costs of the key's limits, or a function of the framework's request.
    realm names the service in WWW-Authenticate.
    """

    def __init__(
        self, client: Client, *, headers: Sequence[str] = ("Authorization", "X-API-Key"), trusted_proxies: Sequence[str] = (),
        cost: Optional[Callable[[Any], int]] = None, realm: str = "api",
    ) -> None:
        if isinstance(headers, str):
            raise TypeError("headers must be a list of names")
        self._client, self._headers, self._trusted = client, headers, parse_networks(trusted_proxies)
        self._cost, self._realm = cost, realm

    def decide(self, request: Any, scopes: Sequence[str], lines: HeaderLines, peer: Optional[str]) -> Decision:
        """Decides about a request. It raises nothing: no answer is no permission."""
        try:
            agents = lines("user-agent")
            verified = self._client.verify(
                key_of(self._headers, lines), scopes,
                address=client_address(peer, lines("x-forwarded-for"), self._trusted),
                cost=self._cost(request) if self._cost else None,
                user_agent=agents[0] if agents else None)
            return Decision(verified, 200, limit_headers(verified))
        except RefusedError as error:
            headers = {"Cache-Control": "no-store"}
            if error.verification:
                headers.update(limit_headers(error.verification))
            challenge = error.challenge(self._realm, scopes)
            if challenge:
                headers["WWW-Authenticate"] = challenge
            if error.retry_after:
                headers["Retry-After"] = str(error.retry_after)
            return Decision(None, error.status, headers, error.message, error.reason)
        except Exception as error:  # noqa: BLE001 # Whatever it is, it is no permission.
            _log.warning("a key could not be verified; the request is refused: %s", error if isinstance(error, UnverifiedError) else type(error).__name__)
            wait = max(1, getattr(error, "retry_after", None) or 1)
            return Decision(None, 503, {"Cache-Control": "no-store", "Retry-After": str(wait)}, _UNAVAILABLE, "UNAVAILABLE")


def limit_headers(v: Verification, now: Optional[float] = None) -> Dict[str, str]:
    """Returns the headers that tell of the limits of a key; none for a key without any."""
    if v.key is None or not (v.rate_limit or v.quota):
        return {}
    at = time.time() if now is None else now

    def until(text: str) -> int:
        moment = datetime.datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=datetime.timezone.utc)
        return max(0, math.ceil(moment.timestamp() - at))

    left, policy = [], []
    if v.rate_limit:
        left.append(f'"rate";r={v.rate_limit["remaining"]};t={until(v.rate_limit["reset_at"])}')
        policy.append(f'"rate";q={v.rate_limit["limit"]};w={(v.key.get("rate_limit") or {}).get("window_seconds", 0)}')
    if v.quota:
        refill = f';t={until(v.quota["refill_at"])}' if v.quota.get("refill_at") else ""
        left.append(f'"quota";r={v.quota["remaining"]}{refill}')
        daily = ";w=86400" if (v.key.get("quota") or {}).get("refill") == "daily" else ""
        policy.append(f'"quota";q={v.quota["limit"]}{daily}')
    first: Dict[str, Any] = v.rate_limit or v.quota or {}
    headers = {
        "RateLimit": ", ".join(left), "RateLimit-Policy": ", ".join(policy),
        "X-RateLimit-Limit": str(first["limit"]), "X-RateLimit-Remaining": str(first["remaining"]),
    }
    reset = first.get("reset_at") or first.get("refill_at")
    if reset:
        headers["X-RateLimit-Reset"] = str(until(reset))
    return headers
