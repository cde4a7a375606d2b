"""Middleware for ASGI: FastAPI, Starlette, Quart, and every other application of it."""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable, Callable, Dict, List, Sequence, Union

from ._client import Client, Verification
from ._protect import PUBLIC, Protector

Scope = Dict[str, Any]
Scopes = Union[Sequence[str], Callable[[Scope], Any]]

_VERIFIED = "apikeys.verified"


def lines_of(scope: Scope) -> Callable[[str], List[str]]:
    """Returns the lines of the headers of a request, by names in lower case."""

    def lines(name: str) -> List[str]:
        wanted = name.encode("latin-1")
        return [value.decode("latin-1") for key, value in scope.get("headers", ()) if key.lower() == wanted]

    return lines


def verified(scope: Scope) -> Verification:
    """Returns what a request was let through with. It raises LookupError where nothing has verified a key."""
    found = scope.get(_VERIFIED)
    if found is None:
        raise LookupError("no middleware has verified the key of this request")
    return found


class Middleware:
    """Lets requests and WebSockets through to an ASGI application whose keys hold all of scopes.

    scopes is a list, or a function of the connection's scope that returns a list, or
    PUBLIC for a request that needs no key. verified(scope) tells of the key. The other
    settings are those of Protector. A verification waits in a thread, not in the event loop.
    """

    def __init__(self, app: Any, client: Client, scopes: Scopes = (), **settings: Any) -> None:
        if isinstance(scopes, str):
            raise TypeError("scopes must be a list of texts, not one text")
        self._app, self._scopes, self._protector = app, scopes, Protector(client, **settings)

    async def __call__(self, scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        scopes = self._scopes(scope) if callable(self._scopes) else self._scopes
        if scopes is PUBLIC:
            await self._app(scope, receive, send)
            return
        peer = (scope.get("client") or [None])[0]
        decision = await asyncio.to_thread(self._protector.decide, scope, scopes, lines_of(scope), peer)
        fields = [(name.lower().encode(), value.encode("latin-1")) for name, value in decision.headers.items()]
        if decision.verified is None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": decision.message})
                return
            body = decision.body
            fields += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": decision.status, "headers": fields})
            await send({"type": "http.response.body", "body": b"" if scope.get("method") == "HEAD" else body})
            return

        async def telling(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *fields]}
            await send(message)

        await self._app({**scope, _VERIFIED: decision.verified}, receive, telling)
