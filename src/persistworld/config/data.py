"""Parameters of the data sources: episodes, base checkpoint, latents and masks."""

import re
import typing
from dataclasses import dataclass, field, fields
from typing import Literal

from persistworld.config.checks import at_least, distinct, positive, require, within_unit
from persistworld.runtime.files import user_path
from persistworld.runtime.workspace import EPISODES

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
View = str
Colour = Literal["red", "green", "blue", "yellow", "magenta", "orange"]  # the colours in simulator/tasks.py


@dataclass(frozen=True)
class OutcomesConfig:
    """The share of each planned outcome among simulated episodes. Physics decides what happens (docs/simulator.md)."""

    clean: float = 0.0  # the script completes the task
    near_miss: float = 0.0  # the hand closes 0 to 5 cm off the grasp point, and continues as if it held the object
    wrong_yaw: float = 0.0  # the hand closes on a cube with a yaw that is 25 to 65 degrees off
    slip: float = 0.0  # the hand closes on the object's edge, so that it slips out on the way
    drop: float = 0.0  # the hand opens in the air on the way to the goal
    early_release: float = 0.0  # the hand opens 2 to 10 cm before the goal, or above it
    shove: float = 0.0  # the closed hand pushes the object away
    regrasp: float = 0.0  # the hand misses, opens, looks again where the object is, and completes the task

    def check(self) -> None:
        names = [each.name for each in fields(self)]
        within_unit(self, "episodes.outcomes", *names)
        total = sum(getattr(self, name) for name in names)
        require(abs(total - 1) <= 1e-6, "episodes.outcomes", f"{total:g} in all", "the shares must sum to 1")


OUTCOMES = OutcomesConfig(
    clean=0.40, near_miss=0.16, wrong_yaw=0.07, slip=0.07, drop=0.08, early_release=0.06, shove=0.08, regrasp=0.08
)  # fmt: skip


@dataclass(frozen=True)
class EpisodesConfig:
    """Where episodes come from and how they are split."""

    source: Literal["simulate", "folder"] = "folder"  # simulate: the PyBullet tabletop; folder: LeRobot or Ctrl-World layout at `path`
    path: str = "../droid_1.0.1"  # simulate: data/episodes; folder: any other path, since the stage `episodes` replaces data/episodes
    keep_ranges: str | None = None  # DROID's public keep_ranges_1_0_1.json: keeps the longest range without idle time in each episode
    count: int = 95_600  # indices 0 .. count-1 are considered
    splits: tuple[str, ...] = ("train", "validation")  # splits that are simulated or read
    modulus: int = 100  # DROID: index % 100 == 99 is validation
    validation: tuple[int, ...] = (99,)
    tuning: tuple[int, ...] = ()
    frames: int = 61  # simulated frames per episode
    height: int = 192  # pixels per view that the world model sees
    width: int = 320
    fps: float = 5.0  # after frame skip
    colours: tuple[Colour, ...] = typing.get_args(Colour)  # simulate: colours of the manipulated object
    outcomes: OutcomesConfig = OUTCOMES  # simulate: the shares of the planned outcomes
    views: tuple[View, ...] = ("exterior_1", "exterior_2", "wrist")
    bad_share: float = 0.05  # largest share of unusable episodes; the stage fails if there are more

    def check(self) -> None:
        own = user_path(self.path).resolve() == EPISODES.resolve()
        filtered = self.source == "folder" or self.keep_ranges is None
        require(filtered, "episodes.keep_ranges", self.keep_ranges, "is for DROID (episodes.source: folder)")
        require(self.source == "simulate" or not own, "episodes.path", self.path, "the workflow replaces it: keep your data set elsewhere")
        at_least(1, self, "episodes", "count", "modulus", "frames", "height", "width")
        require(1 <= len(self.views) <= 4, "episodes.views", self.views, "name one to four views")
        distinct(self, "episodes", "views", "splits")
        within_unit(self, "episodes", "bad_share")
        require(len(self.colours) >= 1, "episodes.colours", self.colours, "name at least one")
        self.outcomes.check()
        positive(self, "episodes", "fps")
        require(len(self.splits) >= 1, "episodes.splits", self.splits, "choose from train, tuning, validation")
        for name in ("validation", "tuning"):
            residues = getattr(self, name)
            require(all(0 <= r < self.modulus for r in residues), f"episodes.{name}", residues, f"residues lie in 0..{self.modulus - 1}")
        require(not set(self.validation) & set(self.tuning), "episodes.tuning", self.tuning, "shares a residue with episodes.validation")
        for split in self.splits:
            require(split in ("train", "tuning", "validation"), "episodes.splits", split, "choose from train, tuning, validation")


@dataclass(frozen=True)
class BaseCheckpointConfig:
    """Where the pre-trained world model comes from."""

    source: Literal["file", "https", "hf"] = "hf"
    location: str = "yjguo/Ctrl-World"  # a folder, a URL ending in .tar, or a hub repository
    revision: str | None = None  # hf: a commit hash; branches are refused because they move
    sha256: dict[str, str] = field(default_factory=dict)  # file name -> digest; recorded at the first download, checked later

    def check(self) -> None:
        if self.source == "hf":
            advice = "pin a commit hash for source hf, 40 hex digits: `hf models info` of the repository prints the newest as sha"
            require(self.revision is not None, "base_checkpoint.revision", self.revision, advice)
            moves = not COMMIT.fullmatch(self.revision or "")
            require(not moves, "base_checkpoint.revision", self.revision, f"branches and tags move: {advice}")
        for name, digest in self.sha256.items():
            require(bool(SHA256.fullmatch(digest)), f"base_checkpoint.sha256.{name}", digest, "a digest has 64 hex digits")


@dataclass(frozen=True)
class LatentsConfig:
    """Latents: the autoencoder encodes every view of every frame once."""

    source: Literal["encode", "recorded"] = "encode"  # recorded: read from the data set (Ctrl-World's processed layout)
    posterior: Literal["mean", "sample"] = "sample"
    shards: int = 8  # number of files, each written by one job

    def check(self) -> None:
        at_least(1, self, "latents", "shards")


@dataclass(frozen=True)
class MasksConfig:
    source: Literal["simulator", "roboengine", "none"] = "roboengine"
