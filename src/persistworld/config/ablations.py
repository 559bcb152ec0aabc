"""Parameters of the ablations (paper, appendix B, Tables 3 to 11) and of the table of speed against quality."""

import re
from dataclasses import dataclass, field
from typing import Any

from persistworld.config.checks import distinct, require
from persistworld.config.models import SHOWN
from persistworld.config.variants import VariantConfig

NAME = re.compile(r"[a-z][a-z0-9_]*")  # of axes and rows: they name targets, files and keys of the metrics
OURS = "ours"  # the row without changes, in most axes
CHUNKS = 10  # of the ablations' rollouts (appendix B), unless ablations.rollout.chunks says otherwise


@dataclass(frozen=True)
class AxisConfig:
    """One table. A row is a variant of the shared setting: a label and the keys that it changes."""

    title: str
    rows: dict[str, VariantConfig | None]
    ours: str = OURS  # the row that is the method itself

    def check(self, where: str) -> None:
        require(self.title.isprintable() and "|" not in self.title, f"{where}.title", self.title, "write one line without |")
        require(len(self.rows) >= 2, f"{where}.rows", ", ".join(self.rows), "name at least two rows to compare")
        for row in self.rows:
            _named(f"{where}.rows", row)
        require(self.ours in self.rows, f"{where}.ours", self.ours, f"no such row; choose from {', '.join(self.rows)}")

    def label(self, row: str) -> str:
        """A row's label in tables: its own, or its name."""
        given = self.rows[row]
        return (given.label if given else "") or row


def _row(label: str, **post_training: Any) -> VariantConfig:
    return VariantConfig(label=label, post_training=post_training)


# Appendix B. `ours` is the setting of all tables but the last, which was measured at N = 2.
PAPER_AXES = {
    "table_3": AxisConfig("Learning rate", {"high": _row("3e-4", optimizer={"learning_rate": 3e-4}), OURS: _row("1e-4 (ours)")}),
    "table_4": AxisConfig("Reward", {
        "lpips": _row("LPIPS only", reward={"ssim": 0.0, "psnr": 0.0}),
        "ssim": _row("SSIM only", reward={"lpips": 0.0, "psnr": 0.0}),
        "psnr": _row("PSNR only", reward={"lpips": 0.0, "ssim": 0.0}),
        OURS: _row("Combined (ours)"),
    }),
    "table_5": AxisConfig("Prefix (chunks)", {
        "fixed_3": _row("Fixed, 3", prefix=[3, 3]),
        "fixed_6": _row("Fixed, 6", prefix=[6, 6]),
        "curriculum": _row("Growing, 0-9", prefix_schedule="curriculum"),
        OURS: _row("Random, 0-9 (ours)"),
        "random_4": _row("Random, 0-4", prefix=[0, 4]),
    }),
    "table_6": AxisConfig("Group size K and best-of-N", {
        "k_4": _row("K = 4, all", candidates=4, keep=0),
        "k_8": _row("K = 8, all", candidates=8, keep=0),
        "all": _row("K = 16, all", candidates=16, keep=0),
        OURS: _row("K = 16, N = 5 (ours)"),
        "n_2": _row("K = 16, N = 2", candidates=16, keep=2),
    }),
    "table_7": AxisConfig("Branch length (chunks per candidate)", {"f_3": _row("3", branch=3), OURS: _row("1 (ours)")}),
    "table_8": AxisConfig("Weight of the wrist view", {"w_2": _row("2", reward={"view_weights": {"wrist": 2.0}}), OURS: _row("1 (ours)")}),
    "table_9": AxisConfig("KL regularisation", {"without": _row("Without", kl_weight=0.0), OURS: _row("With (ours)")}),
    "table_10": AxisConfig("EMA of the reference policy", {"none": _row("None", old_ema_slope=0.0), OURS: _row("Rising to 0.5 (ours)")}),
    "table_11": AxisConfig("EMA of the learning policy, K = 16, N = 2", {
        "ema_09": _row("0.9", candidates=16, keep=2, weight_ema=0.9),
        "none": _row("None", candidates=16, keep=2),
    }, ours="none"),
}  # fmt: skip


@dataclass(frozen=True)
class AblationsConfig:
    """The shared setting of all rows, as changes to the parameter file, and the axes. Rows change it further.

    The number of steps is shared, as in appendix B: tables compare equal numbers of updates and print the cost beside them.
    """

    paper_axes: bool = False  # Tables 3 to 11 as in `PAPER_AXES`; an axis of the same name in `axes` replaces the paper's
    training_seeds: tuple[int, ...] = (0, 1)  # every row is trained once with each; a row's own `seed` replaces them
    post_training: dict[str, Any] = field(default_factory=dict)
    rollout: dict[str, Any] = field(default_factory=dict)  # chunks: CHUNKS unless given
    base_checkpoint: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)  # split, episodes, seeds, protocol
    axes: dict[str, AxisConfig | None] = field(default_factory=dict)  # name (a target of the workflow) -> axis; null drops the paper's

    @property
    def tables(self) -> dict[str, AxisConfig]:
        """All axes by name: the paper's first, then the others."""
        merged = (PAPER_AXES if self.paper_axes else {}) | self.axes
        return {name: axis for name, axis in merged.items() if axis is not None}

    @property
    def shared(self) -> VariantConfig:
        """The shared setting without its evaluation."""
        return VariantConfig("", self.post_training, {"chunks": CHUNKS} | self.rollout, self.base_checkpoint)

    def check(self) -> None:
        require(len(self.training_seeds) >= 1, "ablations.training_seeds", self.training_seeds, "give at least one seed")
        distinct(self, "ablations", "training_seeds")
        for name, axis in self.tables.items():
            _named("ablations.axes", name)
            axis.check(f"ablations.axes.{name}")


@dataclass(frozen=True)
class SpeedConfig:
    """Speed against quality: the rollouts of each model with each number of sampler steps. Nothing is trained."""

    steps: tuple[int, ...] = ()  # none: no such table
    models: tuple[str, ...] = SHOWN

    def check(self) -> None:
        distinct(self, "speed", "steps", "models")
        require(all(count >= 1 for count in self.steps), "speed.steps", self.steps, "must be at least 1")


def _named(where: str, name: str) -> None:
    plain = bool(NAME.fullmatch(name))
    require(plain, where, name, "becomes the name of a target or a metric: use lower-case letters, digits and _, starting with a letter")
