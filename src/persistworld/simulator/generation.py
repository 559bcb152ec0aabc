"""Simulates many episodes: in parallel, deterministic per episode, and resumable."""

import contextlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from pathlib import Path

from persistworld.config.data import OUTCOMES, OutcomesConfig
from persistworld.data.episodes import VIEWS, BadEpisode
from persistworld.data.formats.lerobot_paths import DATA_PATH, MASK_PATH, VIDEO_PATH, file_path
from persistworld.data.formats.lerobot_writer import episode_statistics, write_episode, write_meta
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import write_json
from persistworld.runtime.lifeline import end_with
from persistworld.simulator.episode import SIMULATOR_VERSION, SimulatedEpisode, simulate_episode
from persistworld.simulator.labels import STAGES
from persistworld.simulator.tasks import COLOURS, INSTRUCTIONS

FOLDERS = ("data", "videos", "masks", "meta")
RECORD = "simulation.json"  # the parameters of the episodes in the same folder


def generate(
    root: str | Path, indices: Sequence[int], seed: int, frames: int, height: int, width: int, fps: float,
    workers: int, colours: Sequence[str] = tuple(COLOURS), outcomes: OutcomesConfig = OUTCOMES,
) -> None:  # fmt: skip
    """Simulate the episodes `indices` (they may be sparse) into `root`, with `workers` processes of one thread each.

    Complete episodes on disk are kept, so that a killed run resumes where it stopped. Episodes with other parameters are
    removed first. `meta/` is written last and lists exactly `indices`. Raises UserError when `indices` is empty or
    has negative values, `workers` is below 1, or `root` holds episodes that this function did not make.
    """
    root, wanted = Path(root), sorted(set(indices))
    if not wanted or wanted[0] < 0 or workers < 1:
        raise UserError(f"{root}: give at least one episode index, none negative, and at least one worker")
    made_with = {
        "simulator": SIMULATOR_VERSION, "seed": seed, "frames": frames, "height": height, "width": width, "fps": fps,
        "colours": list(colours), "outcomes": asdict(outcomes),
    }  # fmt: skip
    _prepare(root, made_with, wanted)
    job = partial(_make, root, seed=seed, frames=frames, height=height, width=width, fps=fps, colours=colours, outcomes=outcomes)
    statistics = []
    spawn = multiprocessing.get_context("spawn")
    with _one_thread(), ProcessPoolExecutor(workers, spawn, end_with, (os.getpid(),)) as pool:
        try:
            for future in as_completed([pool.submit(job, index) for index in wanted]):
                statistics.append(future.result())
                _progress(root, len(statistics), len(wanted))
        except BaseException:  # e.g. a full disk or an interrupt: stop without simulating the rest
            pool.shutdown(cancel_futures=True)
            raise
    write_meta(root, statistics, fps)


def _prepare(root: Path, made_with: dict, wanted: Sequence[int]) -> None:
    """Remove episodes that were made with other parameters, and episodes that are not wanted."""
    refuse_foreign(root)
    record = root / RECORD
    try:
        found = json.loads(record.read_text()) if record.is_file() else None
    except json.JSONDecodeError:
        found = None
    if found != made_with:
        for folder in _content(root):
            shutil.rmtree(folder)
        write_json(record, made_with)
    kept = {file for index in wanted for file in _files(root, index)}
    for folder in ("data", "videos", "masks"):
        for file in (root / folder).rglob("*.*"):
            if file.is_file() and file not in kept:
                file.unlink()


def refuse_foreign(root: Path) -> None:
    """Raise UserError when `root` holds episodes that `generate` did not make."""
    if (folders := _content(root)) and not (root / RECORD).is_file():
        raise UserError(f"{folders[0]}: holds episodes that were not simulated here; choose another folder or move it")


def _content(root: Path) -> list[Path]:
    return [root / name for name in FOLDERS if (root / name).exists()]


class _one_thread:
    """Worker processes that are spawned within this context use one thread each, because they read these variables at start."""

    NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

    def __enter__(self):
        self._before = {name: os.environ.get(name) for name in self.NAMES}
        os.environ.update(dict.fromkeys(self.NAMES, "1"))

    def __exit__(self, *_):
        for name, value in self._before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _files(root: Path, index: int) -> list[Path]:
    """All files of one episode."""
    films = [file_path(root, VIDEO_PATH, index, view) for view in VIEWS]
    return [*films, file_path(root, MASK_PATH, index), file_path(root, DATA_PATH, index)]


def _make(root: Path, index: int, **how) -> dict:
    """Simulate and write one episode unless it is already complete. Returns its line of statistics."""
    if all(file.is_file() for file in _files(root, index)):
        with contextlib.suppress(BadEpisode):  # a damaged file: simulate the episode again
            found = episode_statistics(root, index)
            if found["length"] == how["frames"]:
                return found
    write_simulated(root, simulate_episode(index, **how))
    return episode_statistics(root, index)


def write_simulated(root: Path, simulated: SimulatedEpisode) -> None:
    """Write one simulated episode with its masks and labels into the LeRobot folder `root`."""
    task_index = INSTRUCTIONS.index(simulated.episode.instruction)
    stages = dict(zip(STAGES, simulated.stages.T, strict=True))
    write_episode(
        root, simulated.episode, simulated.frames, simulated.masks, task_index, stages=stages, outcome=simulated.task.outcome
    )


def _progress(root: Path, done: int, total: int) -> None:
    terminal = sys.stderr.isatty()
    if terminal or done == total or done % max(1, total // 20) == 0:
        end = "\n" if not terminal or done == total else ""
        print(f"{chr(13) if terminal else ''}{root}: {done}/{total} episodes", end=end, file=sys.stderr, flush=True)
