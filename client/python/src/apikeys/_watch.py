"""Follows the events of a server: newline-delimited JSON, resumed after a cursor."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
import urllib.parse
from typing import Any, Callable, Dict, Iterator, Optional, Sequence

from ._errors import StreamError

_SHORTEST_DELAY, _LONGEST_DELAY = 0.2, 10.0
#: The longest line that is read: many times what an event can be.
_LONGEST_LINE = 16 << 20
# What stays the same however often the call is made. Everything else may be a server
# that restarts, or a proxy in between.
_FINAL = frozenset((400, 401, 403, 404, 405, 406))


class _Lost(Exception):
    """Is why a connection ended that can be made again."""

    def __init__(self, message: str, retry_after: int = 0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def watch(
    connect: Callable[[float], http.client.HTTPConnection], path: str, headers: Dict[str, str], cursor: Optional[str],
    types: Sequence[str], resource_ids: Sequence[str], heartbeat: int, stop: threading.Event,
    on_lost: Optional[Callable[[Exception], None]], on_found: Optional[Callable[[], None]],
) -> Iterator[Dict[str, Any]]:
    delays, lost = 0, False
    while not stop.is_set():
        began = time.monotonic()
        query = [("after", cursor)] if cursor else []
        query += [("types", t) for t in types] + [("resource_ids", r) for r in resource_ids] + [("heartbeat_seconds", str(heartbeat))]
        # A server that has gone without a word is found out when its heartbeats stay away.
        connection = connect(heartbeat * 2 + 10)
        target = f"{path}/developers/events/watch?{urllib.parse.urlencode(query)}"
        try:
            for message in _messages(connection, target, headers):
                if lost and on_found:
                    on_found()
                lost = False
                yield message
                cursor = message["cursor"]  # Only now is the loop done with it.
                if stop.is_set():
                    return
            failure = _Lost("the server ended the stream")
        except _Lost as error:
            failure = error
        finally:
            connection.close()
        if time.monotonic() - began >= _LONGEST_DELAY:
            delays = 0
        delay = min(_SHORTEST_DELAY * 2 ** min(delays, 30), _LONGEST_DELAY)
        delays += 1
        if not lost and on_lost:
            on_lost(failure)
        lost = True
        stop.wait(max(delay / 2 + random.random() * delay / 2, failure.retry_after))


def _messages(connection: http.client.HTTPConnection, target: str, headers: Dict[str, str]) -> Iterator[Dict[str, Any]]:
    try:
        connection.request("GET", target, headers={**headers, "Accept": "application/x-ndjson"})
        response = connection.getresponse()
        if response.status != 200:
            text = response.read(1 << 20)
            raise _failure(text, response.status, response.headers.get("retry-after"))
        while True:
            line = response.readline(_LONGEST_LINE)
            if not line.endswith(b"\n"):
                return  # A line that is not complete comes again.
            if line == b"\n":
                continue
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                raise _Lost("the server sent a line that is not JSON") from None
            if not isinstance(message, dict) or not isinstance(message.get("cursor"), str):
                raise _failure(line, 200, None)  # A stream that fails once begun ends with the envelope.
            yield message
    except (OSError, http.client.HTTPException) as error:
        from ._client import cause_of

        raise _Lost(f"the connection was lost: {cause_of(error)}") from None


def _failure(text: bytes, status: int, retry_after: Optional[str]) -> Exception:
    from ._client import seconds_of

    try:
        failure = json.loads(text)
    except (ValueError, RecursionError):
        failure = None
    failure = failure if isinstance(failure, dict) else {}
    said = failure.get("status")
    status = said if isinstance(said, int) else status
    message = failure.get("error")
    message = message if isinstance(message, str) else f"the server answered {status}, which is no answer of the API"
    if status not in _FINAL:
        return _Lost(message, seconds_of(retry_after) or 0)
    log = failure.get("log") or {}
    return StreamError(message, status, log.get("reason"), log.get("oldest"))
