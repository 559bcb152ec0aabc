"""Shared by all pages: making an application, checking who may call it, and serving it.

Pages are plain HTML and JavaScript in `static/`, with one look (`base.css`). They use relative addresses only, so that they work
below any path prefix, behind a proxy too.
"""

import contextlib
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from persistworld.runtime.errors import UserError

try:
    import uvicorn
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
    from fastapi.staticfiles import StaticFiles
    from starlette.datastructures import Headers, MutableHeaders
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ModuleNotFoundError as error:
    raise UserError(f"pages in the browser need the package {error.name}: pip install 'persistworld[apps]'") from None

STATIC = Path(__file__).parent / "static"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Nothing is loaded from anywhere else, and no page may be framed. Pictures and films are also made in the page (blob:, data:).
POLICY = "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
CLOSE_REFUSED = 1008  # websocket: policy violation


class Guard:
    """Middleware that refuses requests from other sites' pages, and adds headers that isolate our pages.

    Any page that a user has open can send requests to a server on the loopback. So a request must name an allowed host (a foreign name that
    resolves to 127.0.0.1 is refused), and a request that changes something must not come from a page of another origin. If `hosts` is
    empty, any host name is allowed, as for a server that is open to other machines.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app, self.hosts = app, tuple(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        if reason := self._refusal(scope):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": CLOSE_REFUSED, "reason": reason})
            else:
                await JSONResponse({"error": reason}, status_code=403)(scope, receive, send)
            return None

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-cache")  # always asks whether a page has changed
            await send(message)

        return await self.app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        name = urlsplit(f"//{host}").hostname or ""
        if self.hosts and name not in self.hosts:
            return f"no page for host {name}; start the server with --allow-host {name}"
        if origin is None or (scope["type"] == "http" and scope["method"] in SAFE_METHODS):
            return None
        from_page = urlsplit(origin)
        if from_page.netloc == host or from_page.hostname in self.hosts:
            return None
        return f"refused: the request comes from a page of {origin}"


def make_app(title: str, page: str, hosts: Sequence[str] = LOOPBACK, lifespan: Callable[[FastAPI], Any] | None = None) -> FastAPI:
    """An application that serves `static/<page>` at `/`, and the folder `static` at `/static/`.

    A UserError in a handler, or a body of the wrong form, is answered with status 400 and {"error": line}. hosts: as for `Guard`.
    lifespan: FastAPI's, an asynchronous context manager around the serving.
    """
    app = FastAPI(title=title, openapi_url=None, lifespan=lifespan)
    app.add_middleware(Guard, hosts=hosts)

    @app.exception_handler(UserError)
    async def mistaken(_: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": " ".join(str(error).split())}, status_code=400)

    @app.exception_handler(RequestValidationError)
    async def misfit(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return JSONResponse({"error": f"{where}: {first['msg']}"}, status_code=400)

    @app.get("/")
    async def front() -> FileResponse:
        return FileResponse(STATIC / page)

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def allowed_hosts(host: str, extra: Sequence[str] = ()) -> tuple[str, ...]:
    """The allowed host names of a server that listens on `host`: the loopback's names and `extra`, or elsewhere `extra` (empty: any)."""
    return (*LOOPBACK, *extra) if host in LOOPBACK else tuple(extra)


def below(prefix: str, app: FastAPI) -> FastAPI:
    """`app` below a path prefix such as /lab/drive, or unchanged without one. Raises UserError if the prefix is not a path."""
    if not prefix:
        return app
    parts = prefix.strip("/").split("/")
    if not all(part and part.replace("-", "").replace("_", "").isalnum() for part in parts):
        raise UserError(f"--prefix {prefix}: expected a path of letters, digits, - and _, such as /lab/drive")
    path = "/" + "/".join(parts)
    outer = FastAPI(openapi_url=None, lifespan=app.router.lifespan_context)

    @outer.get(path)
    async def with_slash() -> RedirectResponse:  # relative addresses need the slash at the end
        return RedirectResponse(parts[-1] + "/")

    outer.mount(path, app)
    return outer


def serve(app: FastAPI, host: str, port: int, prefix: str = "") -> None:
    """Print the address and serve until interrupted. Raises UserError if it cannot listen on the address."""
    served = below(prefix, app)
    with contextlib.closing(_listening(host, port)) as listening:
        port = listening.getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        path = f"/{prefix.strip('/')}/" if prefix else "/"
        print(f"{app.title}: http://{name}:{port}{path} (Ctrl-C stops it)", file=sys.stderr, flush=True)
        config = uvicorn.Config(served, log_level="warning", timeout_graceful_shutdown=3, ws_max_size=2**22)
        with contextlib.suppress(KeyboardInterrupt):  # the way that a server is meant to end
            uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {host} port {port} ({why}); choose another --port (0 takes a free one) or --host") from None
    return listening
