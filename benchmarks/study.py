"""Load and crash test of the preference study: 50 raters at once, and 20 times kill -9 while votes arrive."""

import contextlib
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.table import Row
from persistworld.apps.study.films import encode_film, padded
from persistworld.apps.study.store import Material, Store, create_study
from persistworld.config.params import Params

RATERS, ITEMS, VOTES = 50, 48, 12  # votes of each rater
THINKING = (0.5, 1.5)  # seconds between two votes; people take ten times as long
KILLS, VOTERS = 20, 8
UNTIL_KILL = (0.2, 1.5)  # seconds of voting before each kill
STATIC = ("static/base.css", "static/study.css", "static/base.js", "static/study.js", "static/study_api.js", "static/study_player.js")
MODELS = ("post_trained", "base")


@dataclass
class Seen:
    """What clients observed: seconds by kind of request, error responses, and acknowledged votes (token, handle)."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {"page": [], "film": [], "vote": []})
    errors: list[str] = field(default_factory=list)
    acknowledged: set[tuple[str, str]] = field(default_factory=set)


class Client:
    """One rater with a persistent connection, as in a browser."""

    def __init__(self, address: str, token: str, seen: Seen) -> None:
        self.connection, self.token, self.seen = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30), token, seen

    def ask(self, path: str, body: dict | None = None) -> bytes:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        self.connection.request("GET" if body is None else "POST", f"/{path}", None if body is None else json.dumps(body), headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            self.seen.errors.append(f"{answer.status} {path}")
        return text

    def timed(self, kind: str, run: Callable[[], object]) -> None:
        began = time.perf_counter()
        run()
        self.seen.seconds[kind].append(time.perf_counter() - began)

    def items(self) -> list[dict]:
        return json.loads(self.ask("api/state"))["items"]

    def vote(self, handle: str, choice: str) -> None:
        self.ask("api/answer", {"item": handle, "answer": choice, "request": os.urandom(8).hex()})
        self.seen.acknowledged.add((self.token, handle))

    def rate(self) -> None:
        """Open the page, then for each item fetch the films and vote."""
        draw = random.Random(self.token)
        time.sleep(draw.uniform(0, THINKING[1]))
        for path in ("", *STATIC):
            self.timed("page", lambda path=path: self.ask(path))
        items: list[dict] = []
        self.timed("page", lambda: items.extend(self.items()))
        for item in items[:VOTES]:
            for slot in ("reference", "a", "b"):
                self.timed("film", lambda slot=slot, item=item: self.ask(f"film/{item['item']}/{slot}"))
            time.sleep(draw.uniform(*THINKING))
            self.timed("vote", lambda item=item: self.vote(item["item"], draw.choice("ab")))

    def rate_until_killed(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            for item in self.items():
                if item["answer"] is None:
                    self.vote(item["item"], "a")


def rows(params: Params) -> list[Row]:
    """Seconds for pages, films and votes, and the counts of errors and lost votes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "studies/load.sqlite"
        create_study(path, {"kind": "preference", "seed": 0, "title": "Load", "models": MODELS}, materials(params))
        with contextlib.closing(Store(path)) as store:
            tokens = [store.invite() for _ in range(RATERS)]
        return [*under_load(Path(folder), path, tokens), *through_kills(Path(folder))]


def materials(params: Params) -> Iterator[Material]:
    """Films of smooth noise with the preset's frame size and a rollout's length."""
    draw = np.random.default_rng(0)
    frames, fps, (height, width) = params.rollout_frames, params.episodes.fps, (params.episodes.height, params.episodes.width)
    coarse = draw.integers(0, 255, (3, frames, 4, 4, 3), dtype=np.uint8)
    blocks = (part.repeat(height // 4, 1).repeat(width // 4, 2) for part in coarse)
    films = padded([encode_film(np.resize(part, (frames, height, width, 3)), fps) for part in blocks])
    for place in range(ITEMS):
        about = {"episode": place, "seed": 0, "view": "wrist", "instruction": "push", "task": "push", "frames": frames, "fps": fps}
        yield Material(about, dict(zip(("reference", *MODELS), films, strict=True)))


def under_load(folder: Path, path: Path, tokens: list[str]) -> list[Row]:
    seen = Seen()
    with served(folder, path.stem) as (address, _):
        clients = [Client(address, token, seen) for token in tokens]
        began = time.perf_counter()
        together(clients, Client.rate)
        took = time.perf_counter() - began
    found = [
        Row(f"{kind}, p{share} of {len(times):,}", 1000 * float(np.percentile(times, share)), "ms", f"{RATERS} raters, {took:.0f} s")
        for kind, times in seen.seconds.items() for share in (50, 95, 100)
    ]  # fmt: skip
    note = ", ".join(sorted(set(seen.errors))[:3])
    errors = Row("answers that were errors", len(seen.errors), "", note)
    return [*found, errors, Row("votes lost", lost(path, seen), f"of {len(seen.acknowledged)}")]


def through_kills(folder: Path) -> list[Row]:
    """Kill and restart the server `KILLS` times while votes arrive. Then check that every acknowledged vote is stored."""
    path = folder / "studies/kills.sqlite"
    film = padded([encode_film(np.zeros((2, 16, 16, 3), np.uint8), 5.0)])[0]
    about = {"episode": 0, "seed": 0, "view": "wrist", "instruction": "", "task": "none", "frames": 2, "fps": 5.0}
    meta = {"kind": "preference", "seed": 0, "title": "Kills", "models": MODELS}
    create_study(path, meta, (Material(about | {"episode": n}, dict.fromkeys(("reference", *MODELS), film)) for n in range(40)))
    draw, seen = random.Random(0), Seen()
    for _ in range(KILLS):
        with contextlib.closing(Store(path)) as store:
            tokens = [store.invite() for _ in range(VOTERS)]
        with served(folder, path.stem) as (address, process):
            killer = threading.Timer(draw.uniform(*UNTIL_KILL), process.kill)
            killer.start()
            together([Client(address, token, seen) for token in tokens], Client.rate_until_killed)
            killer.join()
    return [Row(f"votes lost in {KILLS} kills", lost(path, seen), f"of {len(seen.acknowledged):,}", f"{VOTERS} voters without a pause")]


def lost(path: Path, seen: Seen) -> int:
    """The number of acknowledged votes that are missing from the study."""
    with contextlib.closing(Store(path)) as store:
        held = {
            (token, row["handle"])
            for token in {token for token, _ in seen.acknowledged}
            for row in store.assignments(store.rater_of(token)["id"]) if row["answer"] is not None
        }  # fmt: skip
    return len(seen.acknowledged - held)


def together(clients: list[Client], act: Callable[[Client], None]) -> None:
    threads = [threading.Thread(target=act, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def served(folder: Path, name: str) -> Iterator[tuple[str, subprocess.Popen]]:
    """The address and the process of a study server, which is killed at the end."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "persistworld.cli", "study", "serve", name, "--port", "0", "--params", str(root / "params.yaml")]
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield re.search(r"http://\S+/", process.stderr.readline())[0], process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
