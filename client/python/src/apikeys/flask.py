"""Protects the views of Flask, each with scopes of its own."""

from __future__ import annotations

import functools
from typing import Any, Callable

import flask

from ._client import Client, Verification
from ._protect import Protector
from .wsgi import lines_of

_VERIFIED = "_apikeys_verified"


def verified() -> Verification:
    """Returns what the request was let through with. It raises LookupError where nothing has verified a key."""
    found = flask.g.get(_VERIFIED)
    if found is None:
        raise LookupError("nothing has verified the key of this request; protect the view")
    return found


def protect(client: Client, **settings: Any) -> Callable[..., Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """Returns a decorator of scopes: a view is called where the key holds all of them.

    It stands below the route. verified() tells the view of the key. The settings are those
    of Protector; cost is called with flask.request.
    """
    protector = Protector(client, **settings)

    def requires(*scopes: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        if scopes and callable(scopes[0]):
            raise TypeError("write @requires() for a view that needs no scope")

        def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(view)
            def protected(*args: Any, **kwargs: Any) -> Any:
                request = flask.request
                decision = protector.decide(request, scopes, lines_of(request.environ), request.remote_addr)
                if decision.verified is None:
                    return flask.Response(decision.body, decision.status, decision.headers, content_type="application/json")
                setattr(flask.g, _VERIFIED, decision.verified)
                response = flask.make_response(flask.current_app.ensure_sync(view)(*args, **kwargs))
                response.headers.extend(decision.headers)
                return response

            return protected

        return decorate

    return requires
