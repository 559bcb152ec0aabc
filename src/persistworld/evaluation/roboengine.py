"""Segments robot and object with RoboEngine, per view and in batches of frames, and caches the masks on disk.

Each frame is prompted separately (anchor frequency 1), so that batches do not depend on each other. A view that was
segmented before, also by a killed run, is read from runs/masks. The file's name is a hash of the frames, the instruction
and the batch size, so that it cannot be used for another episode.
"""

import hashlib
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from persistworld.config.data import EpisodesConfig
from persistworld.data.episodes import EpisodeSource
from persistworld.data.frames import resized_frames
from persistworld.evaluation.masks import ObjectStatus, ViewMasks
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path
from persistworld.runtime.workspace import RUNS

ENGINE = "robo_engine.infer_engine"
CACHE = RUNS / "masks"
NO_NOUN = "No noun"  # the beginning of RoboEngine's ValueError for an instruction without an object


class RoboEngineMasks:
    """Masks of resized frames (a MaskSource). The networks are loaded when the first view is not in the cache."""

    def __init__(
        self,
        episodes: EpisodeSource,
        settings: EpisodesConfig,
        batch: int,
        frames: int | None = None,
        cache: Path = CACHE,
    ) -> None:
        """Raises UserError when RoboEngine or one of its dependencies is not installed."""
        self._episodes, self._settings, self._batch, self._frames = episodes, settings, batch, frames
        self._cache = cache
        self._module = import_engine()
        self._engines: tuple[Any, Any] | None = None

    def masks(self, index: int, view: str) -> ViewMasks:
        """One view of one episode, read from the cache or segmented. Raises BadEpisode."""
        frames = resized_frames(self._episodes, index, self._settings, view)[: self._frames].numpy()
        instruction = self._episodes.episode(index).instruction.strip()
        path = self._cache / f"{self._key(frames, instruction)}.npz"
        if not path.is_file():
            found = self._segment(frames, instruction)
            with atomic_path(path) as part:
                np.savez_compressed(part, robot=found.robot, manipulated=found.manipulated, status=found.status)
        with np.load(path) as kept:
            robot, manipulated = (torch.from_numpy(kept[name]) for name in ("robot", "manipulated"))
            return ViewMasks(robot, manipulated, str(kept["status"]))

    def _key(self, frames: np.ndarray, instruction: str) -> str:
        about = f"{frames.shape} {self._batch} {instruction}"
        return hashlib.sha256(about.encode() + np.ascontiguousarray(frames).tobytes()).hexdigest()[:32]

    def _segment(self, frames: np.ndarray, instruction: str) -> ViewMasks:
        if self._engines is None:
            self._engines = load_engines(self._module)
        robot_engine, object_engine = self._engines
        robot = self._in_batches(robot_engine, frames, prompt="robot")
        status: ObjectStatus = "masked" if instruction else "no_instruction"
        manipulated = torch.zeros_like(robot)
        if instruction:
            try:
                manipulated = self._in_batches(object_engine, frames, instruction=instruction)
            except ValueError as error:
                if not str(error).startswith(NO_NOUN):
                    raise
                status = "no_noun"
        return ViewMasks(robot, manipulated, status)

    def _in_batches(self, engine: Any, frames: np.ndarray, **prompt: str) -> Tensor:
        parts = []
        for start in range(0, len(frames), self._batch):
            part = list(frames[start : start + self._batch])
            found = np.asarray(engine.gen_video(part, anchor_frequency=1, **prompt))
            if found.shape != (len(part), *frames.shape[1:3]):
                raise RuntimeError(f"RoboEngine returned {found.shape} for {len(part)} frames of {frames.shape[1:3]}")
            parts.append(torch.from_numpy(found > 0))
        return torch.cat(parts)


def import_engine() -> ModuleType:
    """RoboEngine's module. Raises a one-line UserError that names the missing package."""
    try:
        return importlib.import_module(ENGINE)
    except ImportError as error:
        raise UserError(
            f"masks.source = roboengine: {error.name or error} is not installed; run the workflow with --use-conda, "
            "which builds workflow/envs/roboengine.yml, or choose masks.source simulator or none"
        ) from None


def load_engines(module: ModuleType) -> tuple[Any, Any]:
    """The robot and the object engine, on a GPU if there is one. Raises UserError when spaCy's model is missing."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    more = {}
    # By default, newer releases segment from clicked points, and then load no network for instructions.
    if "segmentation_cue" in inspect.signature(module.RoboEngineObjectSegmentation).parameters:
        more["segmentation_cue"] = module.SegmentationCue.prompts
    try:
        robot = module.RoboEngineRobotSegmentation(device=device)
        return robot, module.RoboEngineObjectSegmentation(device=device, **more)
    except OSError as error:
        if "en_core_web_sm" not in str(error):
            raise
        advice = "run python -m spacy download en_core_web_sm"
        raise UserError(f"masks.source = roboengine: spaCy's en_core_web_sm is not installed; {advice}") from None
