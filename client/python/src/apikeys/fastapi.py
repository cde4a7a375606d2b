"""Protects the paths of FastAPI, each with scopes of its own."""

from typing import Any, Callable

from fastapi import HTTPException, Request, Response

from ._client import Client, Verification
from ._protect import Protector
from .asgi import lines_of


def protect(client: Client, **settings: Any) -> Callable[..., Callable[..., Verification]]:
    """Returns a function that makes dependencies of scopes.

    The path is called where the key holds all of them, with what the server says of the
    key: verified=Depends(requires("products.read")). The settings are those of Protector;
    cost is called with the request.
    """
    protector = Protector(client, **settings)

    def requires(*scopes: str) -> Callable[..., Verification]:
        # Not async: FastAPI runs it in a thread, since it waits.
        def dependency(request: Request, response: Response) -> Verification:
            peer = request.client.host if request.client else None
            decision = protector.decide(request, scopes, lines_of(request.scope), peer)
            if decision.verified is None:
                raise HTTPException(decision.status, decision.message, decision.headers)
            response.headers.update(decision.headers)
            return decision.verified

        return dependency

    return requires
