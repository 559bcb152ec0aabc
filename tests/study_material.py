"""A small study of made-up films for the tests, and a server process for it."""

import contextlib
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from persistworld.apps.study.films import encode_film, padded
from persistworld.apps.study.store import Material, Store, create_study

ROOT = Path(__file__).parents[1]
MODELS = ("post_trained", "base")
FRAMES, FPS = 12, 6.0


def film(level: int, blur: int = 0) -> np.ndarray:
    """A bright square that moves, (FRAMES, 32, 48, 3) uint8."""
    frames = np.full((FRAMES, 32, 48, 3), level, np.uint8)
    for t in range(FRAMES):
        frames[t, 8:16, 2 + 3 * t : 10 + 3 * t] = 255 - 20 * blur
    return frames


def materials(items: int) -> Iterator[Material]:
    """Items of six episodes and two views; the films of all items are the same."""
    films = padded([encode_film(film(level, blur), FPS) for level, blur in ((60, 0), (60, 2), (80, 5))])
    for place in range(items):
        about = {
            "episode": place // 2, "seed": 0, "view": ("exterior_1", "wrist")[place % 2], "instruction": f"push <b>cube</b> {place}",
            "task": ("push", "put")[place // 2 % 2], "frames": FRAMES, "fps": FPS,
        }  # fmt: skip
        yield Material(about, dict(zip(("reference", *MODELS), films, strict=True)))


def progress_materials(items: int) -> Iterator[Material]:
    mp4 = padded([encode_film(film(60), FPS)])[0]
    for place in range(items):
        about = {"world": ("real", "base")[place % 2], "policy": "expert", "task": "put", "state": str(place // 2), "seed": "0"}
        yield Material(about | {"stages": ["Reach", "Grasp", "Lift"], "frames": FRAMES, "fps": FPS}, {"film": mp4})


def make_study(folder: Path, items: int = 12, kind: str = "preference", name: str = "demo") -> tuple[Path, str]:
    """`folder`/studies/NAME.sqlite and the administrator's token."""
    path = folder / "studies" / f"{name}.sqlite"
    meta = {"kind": kind, "seed": 3, "title": "Which is closer?"} | ({"models": MODELS} if kind == "preference" else {})
    return path, create_study(path, meta, materials(items) if kind == "preference" else progress_materials(items))


def invited(path: Path, count: int) -> list[str]:
    """The tokens of `count` more raters."""
    with contextlib.closing(Store(path)) as store:
        return [store.invite(f"Rater {place}") for place in range(count)]


@contextlib.contextmanager
def served(folder: Path, *options: str, name: str = "demo") -> Iterator[tuple[str, subprocess.Popen]]:
    """The address of a server process of `folder`'s study, and the process; killed at the end."""
    command = [sys.executable, "-m", "persistworld.cli", "study", "serve", name, "--port", "0", "--params", str(ROOT / "params.yaml")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([*command, *options], cwd=folder, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        line = process.stderr.readline()
        address = re.search(r"http://\S+/", line)
        assert address, line + process.stderr.read()
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address[0], timeout=10).read()
                break
            assert time.monotonic() < deadline and process.poll() is None
        yield address[0], process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
