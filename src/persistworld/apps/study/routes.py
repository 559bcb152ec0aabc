"""The study's server: the rater's page, the administrator's page, and their API.

An invitation carries its token in the fragment (behind #), which browsers do not send. The page sends it in a header. So there are no
cookies that another site's page could use, and no log contains a token. Films have handles, which are random for each rater and item.
"""

import csv
import io
import sqlite3
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.responses import FileResponse, JSONResponse, Response

from persistworld.apps.server import LOOPBACK, STATIC, make_app
from persistworld.apps.study.limits import BodyLimit, Rate
from persistworld.apps.study.rows import CSV_COLUMNS, csv_rows
from persistworld.apps.study.store import Refused, Store
from persistworld.apps.study.summary import summary

REMARK = 2_000  # characters
Handle = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{22}$")]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(Body):
    """item: a handle; answer: a or b, or the number of stages reached; request: an identifier that the page makes for each click."""

    item: Handle
    answer: Annotated[str, StringConstraints(pattern=r"^(a|b|\d{1,2})$")]
    request: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{16,64}$")]


class Undo(Body):
    item: Handle


class Remark(Body):
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=REMARK)]


def study_app(store: Store, hosts: tuple[str, ...] = LOOPBACK) -> FastAPI:
    """The application that serves one study. hosts: as for `apps.server.make_app`."""
    app = make_app(f"Study {store.path.stem}", "study.html", hosts)
    app.add_middleware(BodyLimit)
    items = store.items()
    calls, films, strangers = Rate(60, 3), Rate(60, 6), Rate(30, 0.5)

    def stranger(request: Request) -> HTTPException:
        """The answer to a request without a valid token or handle: the reason at first, later only that there were too many tries."""
        known = strangers.allows(request.client.host if request.client else "")
        return HTTPException(401, "this link is not valid; ask the organisers for another") if known else TOO_MANY

    def rater(request: Request, authorization: Annotated[str, Header()] = "") -> sqlite3.Row:
        found = store.rater_of(authorization.removeprefix("Bearer "))
        if found is None:
            raise stranger(request)
        if not calls.allows(found["code"]):
            raise TOO_MANY
        return found

    def administrator(request: Request, authorization: Annotated[str, Header()] = "") -> None:
        if not store.is_administrator(authorization.removeprefix("Bearer ")):
            raise stranger(request)
        if not calls.allows("administrator"):
            raise TOO_MANY

    Rater, Administrator = Annotated[sqlite3.Row, Depends(rater)], Depends(administrator)

    @app.exception_handler(HTTPException)
    async def refused_request(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code)

    @app.exception_handler(Refused)
    async def refused_answer(_: Request, error: Refused) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 409)

    @app.get("/admin")
    def admin_page() -> FileResponse:
        return FileResponse(STATIC / "study_admin.html")

    @app.get("/api/state")
    def state(rater: Rater) -> dict[str, Any]:
        store.note_time(rater["id"], "opened")
        own = store.assignments(rater["id"])
        last = max((row for row in own if row["number"] is not None), key=lambda row: row["number"], default=None)
        return {
            "kind": store.meta["kind"],
            "title": store.meta["title"],
            "began": rater["began"] is not None,
            "last": last and last["handle"],
            "items": [{"item": row["handle"], "answer": row["answer"], **shown(items[row["item"]])} for row in own],
        }

    @app.post("/api/begin")
    def begin(rater: Rater) -> dict[str, Any]:
        store.note_time(rater["id"], "began")
        return {}

    @app.post("/api/answer")
    def answer(given: Answer, rater: Rater) -> dict[str, Any]:
        possible = store.possible_answers(rater["id"], given.item)
        if given.answer not in possible:
            raise HTTPException(400, f"the answer must be one of {', '.join(possible)}")
        store.record(rater["id"], given.item, given.answer, given.request)
        return {"last": given.item}

    @app.post("/api/undo")
    def undo(taken: Undo, rater: Rater) -> dict[str, Any]:
        return {"last": store.undo(rater["id"], taken.item)}

    @app.post("/api/remark")
    def remark(left: Remark, rater: Rater) -> dict[str, Any]:
        store.add_note(rater["id"], left.text)
        return {}

    @app.get("/film/{handle}/{slot}")
    def film(handle: str, slot: str, request: Request, range: Annotated[str | None, Header()] = None) -> Response:
        mp4 = store.film(handle, slot)
        if mp4 is None:
            raise stranger(request)
        if not films.allows(handle):
            raise TOO_MANY
        return ranged(mp4, range)

    @app.get("/api/summary", dependencies=[Administrator])
    def study_summary() -> dict[str, Any]:
        return summary(store)

    @app.get("/api/answers.csv", dependencies=[Administrator])
    def answers_csv() -> Response:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, CSV_COLUMNS[store.meta["kind"]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(csv_rows(store))
        return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers={"Cache-Control": "no-store"})

    return app


TOO_MANY = HTTPException(429, "too many requests; wait a few seconds")


def shown(about: dict[str, Any]) -> dict[str, Any]:
    """The facts about an item that a rater may see: none names a model, a policy or a world."""
    kept = {"view": about.get("view", ""), "frames": about["frames"], "fps": about["fps"], "stages": about.get("stages", [])}
    return {"words": about.get("instruction", about["task"]), **kept}


def ranged(data: bytes, asked: str | None) -> Response:
    """`data`, or the range of bytes in `asked` ("bytes=first-last", either may be missing). Status 416 if the range does not exist.

    All films have the same headers, apart from the length, which is equal within an item.
    """
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, max-age=86400, immutable"}
    unit, _, span = (asked or "").partition("=")
    first, dash, last = span.strip().partition("-")
    if unit != "bytes" or not dash or not (first + last).isdecimal() or not (first + last).isascii():
        return Response(data, media_type="video/mp4", headers=headers)  # none, several, or nonsense: all of it, as RFC 9110 has it
    start = int(first) if first else max(0, len(data) - int(last))
    stop = min(len(data), int(last) + 1 if first and last else len(data))
    if start >= stop:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return Response(data[start:stop], 206, headers, "video/mp4")
