"""The page on which people drive: one websocket, and one drive, per tab.

A message is JSON with the key `do`. The answer is JSON. If there are new frames, one PNG follows: a row for each frame and model, a column
for each view.

| do | other keys | answer |
|---|---|---|
| start | episode (a number, or null for a random one), noise | started: instruction, pose, each model's gripper, ... and 1 frame |
| go | keys (letters pressed at once) or push (move, turn, gripper), step (m), angle (rad) | moved: pose, seconds, ... and n frames |
| undo | | moved, and 1 frame |
| save | as: mp4 or lerobot, model (lerobot) | saved: the path |
"""

import asyncio
import io
import random
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse
from PIL import Image

from persistworld.apps.driving import Drive, Push, Starts, pushed
from persistworld.apps.recording import save_episode, save_film
from persistworld.apps.server import LOOPBACK, make_app
from persistworld.apps.worlds import Parts, inhabited
from persistworld.config.models import FIXED
from persistworld.config.params import Params
from persistworld.robot.control import GRIPPER
from persistworld.rollouts.inhabited import Embodiment
from persistworld.runtime.errors import UserError

LABELS = {model.name: model.label for model in FIXED} | {"tabletop_base": "Base"}
MOST = 16  # tabs at once: each holds what it records in memory
LISTED = 2000  # numbers of episodes that are sent to the page
LARGEST_STEP, LARGEST_ANGLE = 0.3, 1.5  # m and rad a chunk


class Drives:
    """The drives of all tabs, and the single thread in which the models run."""

    def __init__(self, models: Mapping[str, Parts], starts: Starts, robot: Embodiment, params: Params, output: Path) -> None:
        self.models, self.starts, self.robot, self.params, self.output = models, starts, robot, params, output
        self.open: dict[int, Drive] = {}  # by tab
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="models")
        self.tabs = 0

    def about(self) -> dict[str, Any]:
        """The settings that the page needs before it starts."""
        model, settings = next(iter(self.models.values()))[0], self.params.episodes
        return {
            "models": {name: LABELS.get(name, name) for name in self.models},
            "views": list(model.views),
            "height": settings.height, "width": settings.width, "fps": settings.fps,
            "frames": model.config.future - 1,
            "episodes": self.starts.indices()[:LISTED],
        }  # fmt: skip

    def enter(self) -> int:
        """Register a new tab with its own drive and return the tab's number. Raises UserError if there are too many."""
        if len(self.open) >= MOST:
            raise UserError(f"{MOST} tabs are driving already; close one and load this page again")
        self.tabs += 1
        drive = Drive({name: inhabited(parts, self.params, self.robot) for name, parts in self.models.items()}, self.starts)
        self.open[self.tabs] = drive
        return self.tabs

    def answer(self, tab: int, message: Mapping[str, Any]) -> tuple[dict[str, Any], bytes | None]:
        """Carry out a tab's message. Returns the answer, and a PNG of new frames or None. Raises UserError for an impossible request."""
        drive, what = self.open[tab], message.get("do")
        if what == "start":
            return self._start(drive, message)
        if what == "go":
            began = time.perf_counter()
            frames = drive.go(_push(message), _number(message, "step", LARGEST_STEP), _number(message, "angle", LARGEST_ANGLE))
            return {"moved": self._where(drive) | {"seconds": time.perf_counter() - began, "frames": len(frames)}}, sheet(frames)
        if what == "undo":
            if not drive.undo():
                raise UserError("there is nothing to take back")
            return {"moved": self._where(drive) | {"frames": 1}}, sheet(drive.current[None])
        if what == "save":
            return {"saved": self._save(drive, message)}, None
        raise UserError(f"do: {what!r} is not start, go, undo or save")

    def _start(self, drive: Drive, message: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        indices, episode = self.starts.indices(), message.get("episode")
        if episode is None:
            episode = random.choice(indices)
        if not isinstance(episode, int) or episode not in indices:
            raise UserError(f"no episode {episode}; they are numbered {indices[0]} to {indices[-1]}")
        drive.reset(episode, int(_number(message, "noise", 2**31)))
        about = {"episode": episode, "instruction": drive.start.instruction, "frames": 1}
        return {"started": self._where(drive) | about}, sheet(drive.current[None])

    def _where(self, drive: Drive) -> dict[str, Any]:
        return {
            "pose": [round(float(number), 4) for number in drive.pose],
            "grippers": {name: round(float(model.poses[0][GRIPPER]), 4) for name, model in drive.models.items()},
            "chunks": drive.chunks, "edge": drive.at_edge,
        }  # fmt: skip

    def _save(self, drive: Drive, message: Mapping[str, Any]) -> dict[str, Any]:
        if not drive.chunks:
            raise UserError("drive first, then save")
        words, fps = drive.start.instruction, self.params.episodes.fps
        if message.get("as") == "mp4":
            path = free_path(self.output)
            save_film(path, drive.recording, fps, LABELS, words)
            return {"path": str(path), "link": f"saved/{path.name}"}
        if message.get("as") == "lerobot":
            model = message.get("model")
            if model not in self.models:
                raise UserError(f"model: {model!r} is not one of {', '.join(self.models)}")
            folder = self.output / f"lerobot_{model}"
            index = save_episode(folder, drive.recording, model, self.params.episodes.views, fps, words)
            return {"path": f"{folder}, episode {index}"}
        raise UserError("as: choose mp4 or lerobot")


def drive_app(drives: Drives, hosts: tuple[str, ...] = LOOPBACK) -> FastAPI:
    """The application: the page, its settings, saved films, and the websocket `drive`."""

    @asynccontextmanager
    async def lifespan(_: FastAPI):
        yield
        drives.worker.shutdown(wait=False, cancel_futures=True)

    app = make_app("Drive", "drive.html", hosts, lifespan)

    @app.get("/about")
    def about() -> dict[str, Any]:
        return drives.about()

    @app.get("/saved/{name}")
    def saved(name: str) -> FileResponse:
        if not name.startswith("drive-") or not (path := drives.output / Path(name).name).is_file():
            raise UserError(f"{name}: no such film")
        return FileResponse(path, media_type="video/mp4")

    @app.websocket("/drive")
    async def drive(connection: WebSocket) -> None:
        await connection.accept()
        try:
            tab = drives.enter()
        except UserError as error:
            await connection.send_json({"error": str(error), "fatal": True})
            await connection.close()
            return
        try:
            await _converse(connection, drives, tab)
        except WebSocketDisconnect:
            pass
        finally:
            del drives.open[tab]

    return app


async def _converse(connection: WebSocket, drives: Drives, tab: int) -> None:
    """Answer one tab until it closes. Its requests are answered in order; the tabs take turns in the models' thread."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            message = await connection.receive_json()
            if not isinstance(message, dict):
                raise UserError("expected an object with the key do")
            answer, picture = await loop.run_in_executor(drives.worker, drives.answer, tab, message)
        except (UserError, ValueError) as error:  # ValueError: not JSON
            answer, picture = {"error": " ".join(str(error).split())}, None
        await connection.send_json(answer)
        if picture is not None:
            await connection.send_bytes(picture)


def sheet(frames: np.ndarray) -> bytes:
    """(n, M, V, H, W, 3) uint8 -> one PNG: a row for each frame and, within it, model; a column for each view."""
    n, models, views, height, width, _ = frames.shape
    whole = frames.transpose(0, 1, 3, 2, 4, 5).reshape(n * models * height, views * width, 3)
    buffer = io.BytesIO()
    Image.fromarray(whole).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def free_path(folder: Path) -> Path:
    """The first drive-N.mp4 in `folder` that does not exist yet."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    while (path := folder / f"drive-{number:03d}.mp4").exists():
        number += 1
    return path


def _push(message: Mapping[str, Any]) -> Push:
    if "keys" in message:
        return pushed(str(message["keys"]))
    wanted = message.get("push")
    try:
        x, y, z = (min(1.0, max(-1.0, float(share))) for share in wanted["move"])
        grip = wanted.get("gripper")
        return Push((x, y, z), min(1.0, max(-1.0, float(wanted["turn"]))), None if grip is None else min(1.0, max(0.0, float(grip))))
    except (TypeError, KeyError, ValueError, AttributeError):
        raise UserError("push: expected move (three numbers), turn (a number) and gripper (a number or null)") from None


def _number(message: Mapping[str, Any], name: str, largest: float) -> float:
    value = message.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= largest:
        raise UserError(f"{name}: {value!r} is not a number from 0 to {largest:g}")
    return value
