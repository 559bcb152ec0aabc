"""Limits on request rates and bodies, so that no client can take a server's time or memory from the others."""

import asyncio
import threading
import time
from collections import OrderedDict

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY = 8 * 1024  # bytes of a request, at most: a vote has 100, a remark 2,000 characters
BODY_SECONDS = 10  # in which a body must have arrived
KEYS = 20_000  # buckets that are remembered


class Rate:
    """A token bucket per key: `burst` requests at once, `per_second` on average."""

    def __init__(self, burst: float, per_second: float) -> None:
        self.burst, self.per_second = burst, per_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> (tokens, when), the least recent first
        self._lock = threading.Lock()

    def allows(self, key: str, now: float | None = None) -> bool:
        """Whether one more request of `key` is within its rate; counts it if so. now: seconds of a steady clock."""
        now = time.monotonic() if now is None else now
        with self._lock:
            tokens, before = self._buckets.pop(key, (self.burst, now))
            tokens = min(self.burst, tokens + (now - before) * self.per_second)
            allowed = tokens >= 1
            self._buckets[key] = (tokens - allowed, now)
            if len(self._buckets) > KEYS:
                self._buckets.popitem(last=False)
        return allowed


class BodyLimit:
    """Middleware that reads a request's body first, and answers 413 if it is too long, 408 if it is too slow."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            return await self.app(scope, receive, send)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(receive)
        except TimeoutError:
            return await _refusal(408, "the request took too long")(scope, receive, send)
        if body is None:
            return await _refusal(413, f"a request has at most {BODY} bytes")(scope, receive, send)
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return messages.pop() if messages else await receive()

        return await self.app(scope, again, send)


async def _body(receive: Receive) -> bytes | None:
    """The whole body, or None when it is longer than `BODY`."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message["type"] == "http.request" and message.get("more_body", False)
        if len(body) > BODY:
            return None
    return body


def _refusal(status: int, error: str) -> JSONResponse:
    return JSONResponse({"error": error}, status, {"Connection": "close"})
