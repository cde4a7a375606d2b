"""Calls one server over REST, with connections that are kept open."""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import ssl
import threading
import time
import urllib.parse
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from . import _errors, _watch
from ._errors import UnverifiedError
from ._request import MAX_KEY_LENGTH, bare_key

_MAX_ANSWER = 1 << 20
_MAX_IDLE = 32
_MAX_USER_AGENT = 1024


class Verification(NamedTuple):
    """What the server says of a key. key is the key with its secret masked."""

    valid: bool
    code: str
    key: Optional[Dict[str, Any]]
    rate_limit: Optional[Dict[str, Any]] = None
    quota: Optional[Dict[str, Any]] = None
    previous_secret: bool = False
    retry_after: Optional[int] = None


class _Idle:
    """Connections of this process that are open and not in use."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.connections: List[http.client.HTTPConnection] = []


class Client:
    """Calls one server. It can be shared by threads, and by processes that are forked.

    url is the address of the server's REST API, such as https://keys.example.com. token is
    what the calls are made with: to verify, an API key with the scope api_keys.verify and
    nothing else is best. organization is the one to act in, for tokens of operators; *
    stands for all. timeout is how many seconds a verification may take, with all of its
    attempts, and attempts how often it is tried while the server cannot answer.
    allow_insecure sends the token over http:// to another machine than this one.
    """

    def __init__(
        self, url: str, token: str, *, organization: Optional[str] = None, timeout: float = 2.0, attempts: int = 3,
        allow_insecure: bool = False, ssl_context: Optional[ssl.SSLContext] = None,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.username is not None or parts.password is not None:
            raise ValueError("url must not hold a credential; that is what token is for")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or port == -1:
            raise ValueError("url must be such as https://keys.example.com")
        host = parts.hostname
        local = host in ("localhost", "::1") or re.fullmatch(r"127\.[0-9.]+", host) is not None
        if parts.scheme == "http" and not local and not allow_insecure:
            raise ValueError(f"url http://{host} would send the token unencrypted; use https://, or set allow_insecure if it may be read on its way")
        token = (token or "").strip()
        if not token:
            raise ValueError("token is empty; give the secret of an API key with the scope api_keys.verify")
        for name, text in (("token", token), ("organization", organization)):
            if text is not None and not re.fullmatch(r"[!-~]+", text):
                raise ValueError(f"{name} must be one word of printable ASCII")
        if not 0 < timeout <= 600:
            raise ValueError("timeout must be more than 0 and at most 600 seconds")
        if not 1 <= attempts <= 10:
            raise ValueError("attempts must be 1 to 10")
        self._host, self._port, self._path = host, port, parts.path.rstrip("/")
        self._secure = parts.scheme == "https"
        self._ssl = (ssl_context or ssl.create_default_context()) if self._secure else None
        self._headers = {"Authorization": f"Bearer {token}"}
        if organization is not None:
            self._headers["X-Organization-Id"] = organization
        self._timeout, self._attempts = timeout, attempts
        self._idle = _Idle()

    def __repr__(self) -> str:
        return f"<apikeys.Client of {self._host}>"

    def verify(
        self, key: str, scopes: Sequence[str] = (), *, address: Optional[str] = None, cost: Optional[int] = None, user_agent: Optional[str] = None,
    ) -> Verification:
        """Asks about a key, and returns only where the key is good.

        scopes are what the key must hold, all of them; address is the client's, without
        which every key that has an ip_allow_list is refused; cost is what the request
        costs of the key's limits, 1 unless it says otherwise. It raises RefusedError where
        the key is not good, and UnverifiedError where there was no answer in time.
        """
        if isinstance(scopes, str):
            raise TypeError("scopes must be a list of texts, not one text")
        key = bare_key(key.strip())
        if not key:
            raise _errors.missing()
        if len(key) > MAX_KEY_LENGTH or any("\ud800" <= c <= "\udfff" for c in key):
            raise _errors.invalid()
        body: Dict[str, Any] = {"key": key, "scopes": list(scopes)}
        if address is not None:
            body["ip"] = address
        if cost is not None:
            body["cost"] = cost
        if user_agent:
            # JSON has no half of a surrogate pair.
            body["user_agent"] = user_agent[:_MAX_USER_AGENT].encode("utf-8", "replace").decode()
        v = self._ask(json.dumps(body).encode(), cost)
        refusal = _errors.refusal_of(v, scopes)
        if refusal:
            raise refusal
        if v.key is None:
            raise UnverifiedError("the server says that the key is good and does not say which it is")
        return v

    def _ask(self, body: bytes, cost: Optional[int]) -> Verification:
        deadline = time.monotonic() + self._timeout
        delay = 0.025
        for attempt in range(1, self._attempts + 1):
            try:
                return self._ask_once(body, cost, deadline)
            except UnverifiedError as error:
                pause = max(delay / 2 + random.random() * delay / 2, error.retry_after or 0)
                if error.status not in (None, 502, 503) or attempt == self._attempts or time.monotonic() + pause >= deadline:
                    raise
            time.sleep(pause)
            delay *= 2
        raise AssertionError("unreachable")

    def _ask_once(self, body: bytes, cost: Optional[int], deadline: float) -> Verification:
        try:
            status, headers, text = self._call("POST", "/developers/api_keys/verify", body, deadline)
        except (OSError, http.client.HTTPException) as error:
            raise UnverifiedError(f"the server at {self._host} gave no answer: {cause_of(error)}") from None
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        answer = answer if isinstance(answer, dict) else {}
        data = answer.get("data")
        if status == 200 and isinstance(data, dict) and isinstance(data.get("code"), str):
            return Verification(
                data.get("valid") is True, data["code"], data.get("api_key"), data.get("rate_limit"), data.get("quota"),
                data.get("previous_secret") is True, data.get("retry_after_seconds"))
        if status == 400 and "cost" in (answer.get("validator") or {}) and cost is not None and 0 <= cost <= 1_000_000:
            raise _errors.cost_too_high()
        message = answer.get("error")
        raise UnverifiedError(
            message if isinstance(message, str) else f"the server at {self._host} answered {status}, which is no answer of the API",
            status, (answer.get("log") or {}).get("reason"), answer.get("support_id"), seconds_of(headers.get("retry-after")))

    def _own_idle(self) -> _Idle:
        # A forked process has the sockets of its parent too: each would read answers to
        # the other, which are about other keys.
        if self._idle.pid != os.getpid():
            self._idle = _Idle()
        return self._idle

    def connect(self, timeout: float) -> http.client.HTTPConnection:
        """Returns a connection that is not shared."""
        if self._secure:
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._ssl)
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout)

    def _call(self, method: str, path: str, body: bytes, deadline: float) -> Tuple[int, http.client.HTTPMessage, bytes]:
        headers = {**self._headers, "Content-Type": "application/json", "Accept": "application/json"}
        idle = self._own_idle()
        while True:
            with idle.lock:
                connection = idle.connections.pop() if idle.connections else None
            reused = connection is not None
            if connection is None:
                connection = self.connect(self._timeout)
            try:
                timeout = max(deadline - time.monotonic(), 0.001)
                connection.timeout = timeout
                if connection.sock is not None:
                    connection.sock.settimeout(timeout)
                connection.request(method, self._path + path, body, headers)
                response = connection.getresponse()
                text = b""
                while True:
                    chunk = response.read1(65536)
                    if not chunk:
                        break
                    text += chunk
                    if len(text) > _MAX_ANSWER or time.monotonic() > deadline:
                        raise TimeoutError("the answer is too long or too late")
                response.close()  # So that the connection can be used again.
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                connection.close()
                if reused:  # The server had closed it meanwhile.
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            if response.will_close:
                connection.close()
            else:
                with idle.lock:
                    if len(idle.connections) < _MAX_IDLE:
                        idle.connections.append(connection)
                        connection = None
                if connection is not None:
                    connection.close()
            return response.status, response.headers, text

    def watch(
        self, after: Optional[str] = None, *, types: Sequence[str] = (), resource_ids: Sequence[str] = (), heartbeat_seconds: int = 15,
        stop: Optional[threading.Event] = None, on_lost: Optional[Callable[[Exception], None]] = None, on_found: Optional[Callable[[], None]] = None,
    ) -> Iterator[Dict[str, Any]]:
        """Follows the events of the server over as many connections as that takes.

        A message is {"cursor": ..., "event": ...}; without an event it is a heartbeat,
        whose cursor is as good as an event's. It goes on after the last message that the
        loop was done with: so there is no gap and, while the program lives, no event
        twice. A program that must not miss an event stores the cursor together with what
        it makes of the event, and gives it as after when it starts again: without it the
        stream begins now, and with "start" at the oldest event that is kept.

        stop ends the loop at the next message. on_lost is told why a connection ended,
        once until the next message comes, and on_found of that. It raises StreamError
        where connecting again would not help.
        """
        return _watch.watch(
            self.connect, self._path, self._headers, after, types, resource_ids, heartbeat_seconds, stop or threading.Event(), on_lost, on_found)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections that are kept open."""
        idle = self._own_idle()
        with idle.lock:
            connections, idle.connections = idle.connections, []
        for connection in connections:
            connection.close()


def cause_of(error: Exception) -> str:
    """Says what happened on the way, in words that hold no secret."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    return getattr(error, "strerror", None) or type(error).__name__


def seconds_of(text: Optional[str]) -> Optional[int]:
    """Returns the seconds of a header Retry-After, None for none."""
    return int(text) if text and re.fullmatch(r"[0-9]{1,6}", text, re.ASCII) else None
