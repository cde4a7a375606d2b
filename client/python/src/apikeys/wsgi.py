"""Middleware for WSGI: Flask, Django, Bottle, and every other application of it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Union

from ._client import Client, Verification
from ._protect import PUBLIC, Protector

Environ = Dict[str, Any]
Scopes = Union[Sequence[str], Callable[[Environ], Any]]

_VERIFIED = "apikeys.verified"


def lines_of(environ: Environ) -> Callable[[str], List[str]]:
    """Returns the lines of the headers of a request, by names in lower case."""

    def lines(name: str) -> List[str]:
        value = environ.get("HTTP_" + name.upper().replace("-", "_"))
        return [] if value is None else [value]

    return lines


def verified(environ: Environ) -> Verification:
    """Returns what a request was let through with. It raises LookupError where nothing has verified a key."""
    found = environ.get(_VERIFIED)
    if found is None:
        raise LookupError("no middleware has verified the key of this request")
    return found


class Middleware:
    """Lets requests through to a WSGI application whose keys hold all of scopes.

    scopes is a list, or a function of the environ that returns a list, or PUBLIC for a
    request that needs no key. verified(environ) tells of the key. The other settings are
    those of Protector.
    """

    def __init__(self, app: Any, client: Client, scopes: Scopes = (), **settings: Any) -> None:
        if isinstance(scopes, str):
            raise TypeError("scopes must be a list of texts, not one text")
        self._app, self._scopes, self._protector = app, scopes, Protector(client, **settings)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        scopes = self._scopes(environ) if callable(self._scopes) else self._scopes
        environ.pop(_VERIFIED, None)
        if scopes is PUBLIC:
            return self._app(environ, start_response)
        decision = self._protector.decide(environ, scopes, lines_of(environ), environ.get("REMOTE_ADDR"))
        if decision.verified is None:
            body = decision.body
            headers = [*decision.headers.items(), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
            start_response(f"{decision.status} {HTTPStatus(decision.status).phrase}", headers)
            return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]
        environ[_VERIFIED] = decision.verified

        def start(status: str, headers: List[Any], exc_info: Optional[Any] = None) -> Any:
            return start_response(status, [*headers, *decision.headers.items()], *([exc_info] if exc_info else []))

        return self._app(environ, start)
