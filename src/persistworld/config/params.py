"""Typed parameters: one frozen dataclass per section of `params.yaml`.

Defaults are the paper's values (arXiv 2603.25685, section 4 and appendices B, E). Where the paper gives none, they are the values of the
systems it builds on (Ctrl-World, DiffusionNFT). Unknown keys, wrong types and impossible values are refused. For an unknown key, the error
names the most similar key.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from persistworld.config.ablations import NAME, AblationsConfig, SpeedConfig
from persistworld.config.checks import require
from persistworld.config.compute import ComputeConfig
from persistworld.config.data import BaseCheckpointConfig, EpisodesConfig, LatentsConfig, MasksConfig
from persistworld.config.derived import Derived, derive, overlaid, training_digest
from persistworld.config.evaluation import LPIPS_SMALLEST, EvaluationConfig, MetricsConfig, PaperConfig
from persistworld.config.models import FIXED, Models, variant
from persistworld.config.policies import PoliciesConfig
from persistworld.config.post_training import PostTrainingConfig
from persistworld.config.reading import build_section, digest, nearest, read_yaml
from persistworld.config.training import BaseTrainingConfig, ControlConfig, OwnHistoryConfig
from persistworld.config.variants import VariantConfig
from persistworld.config.world_model import RolloutConfig, WorldModelConfig
from persistworld.runtime.errors import UserError

# Names that other stages use for files in results/metrics/, checkpoints/ and runs/, so variants cannot have them.
TAKEN_NAMES = (
    "table_1", "table_2", "paired", "paired_details", "preference", "masks", "fetched", "episodes", "latents", "base_checkpoint",
    "base_training", "rollouts", "speed", "policies", "simulator", "real", "fidelity", "pose_reader",
)  # fmt: skip


@dataclass(frozen=True)
class Params:
    """All parameters in `params.yaml`."""

    preset: str = "droid"
    seed: int = 0
    episodes: EpisodesConfig = field(default_factory=EpisodesConfig)
    base_checkpoint: BaseCheckpointConfig = field(default_factory=BaseCheckpointConfig)
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig)
    base_training: BaseTrainingConfig = field(default_factory=BaseTrainingConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    post_training: PostTrainingConfig = field(default_factory=PostTrainingConfig)
    control: ControlConfig = field(default_factory=ControlConfig)
    own_history: OwnHistoryConfig = field(default_factory=OwnHistoryConfig)
    masks: MasksConfig = field(default_factory=MasksConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    policies: PoliciesConfig = field(default_factory=PoliciesConfig)
    paper: PaperConfig = field(default_factory=PaperConfig)
    ablations: AblationsConfig = field(default_factory=AblationsConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    variants: dict[str, VariantConfig | None] = field(default_factory=dict)  # name -> changes from post_trained; each adds a model

    def check(self) -> None:
        """Raise UserError at the first value that is impossible, alone or in combination, in this run or a variant's."""
        self.check_run()
        fixed = [model.name for model in FIXED]
        for name in self.variants:
            require(name not in fixed, "variants", name, "is the name of a model that always exists: choose another")
            require(name not in TAKEN_NAMES, "variants", name, "is the name of files that other stages write: choose another")
            require(name not in self.ablations.tables, "variants", name, "is the name of an axis of the ablations: choose another")
            lower = bool(NAME.fullmatch(name))
            require(lower, "variants", name, "names files: write small letters, digits and _ only, a letter first")
            self.for_run(name)
        models = self.models
        taken = self.all_models.bases
        for name in self.ablations.tables:
            require(name not in TAKEN_NAMES, "ablations.axes", name, "is the name of files that other stages write: choose another")
        for folder in taken:
            require(folder not in models, "variants", folder, "is the name of another variant's base checkpoint: choose another")
        for name in self.evaluation.models:
            require(name in models, "evaluation.models", name, f"no such model or variant; {nearest(name, models.names)}")
        if self.policies.labels is None:
            for name in self.policies.models:
                known = models.rolled_out(models.names)
                require(name in known, "policies.models", name, f"no model with a checkpoint; {nearest(name, known)}")

    def check_run(self) -> None:
        """Raise UserError at the first value that is impossible in this run, alone or in combination."""
        require(0 <= self.seed < 1 << 63, "seed", self.seed, "choose a whole number from 0 to 2^63 - 1")
        for section in dataclasses.fields(self):
            value = getattr(self, section.name)
            if hasattr(value, "check"):
                value.check()
        require(self.world_model.future == 5, "world_model.future", self.world_model.future, "only 5 (L) is supported")
        require(
            len(self.rollout.history_index) == self.world_model.history, "rollout.history_index", self.rollout.history_index,
            f"must have world_model.history = {self.world_model.history} entries",
        )
        self._check_views()
        window = self.metrics.ssim_window
        smallest = min(self.episodes.height, self.episodes.width)
        require(window <= smallest, "metrics.ssim_window", window, f"does not fit into views of {smallest} pixels (episodes.height, width)")
        needed = LPIPS_SMALLEST[self.metrics.lpips]
        require(
            needed <= smallest, "metrics.lpips", self.metrics.lpips,
            f"takes no views below {needed} pixels, and the smaller of episodes.height and width is {smallest}: enlarge it, or name "
            "another network",
        )
        # A run with training episodes only (to train a base model) evaluates nothing.
        held_out = set(self.episodes.splits) - {"train"}
        require(
            not held_out or self.evaluation.split in held_out, "evaluation.split", self.evaluation.split,
            f"is not among episodes.splits, {', '.join(self.episodes.splits)}: add it there, or choose another",
        )
        longest = self.post_training.prefix[1] + self.post_training.branch
        chunk = self.world_model.future - 1
        if self.episodes.source == "simulate":
            needed = max(longest * chunk + 1, self.rollout_frames)
            require(
                needed <= self.episodes.frames, "episodes.frames", self.episodes.frames,
                f"post_training.prefix + branch and rollout.chunks need {needed} frames: shorten them or simulate more",
            )

    def _check_views(self) -> None:
        """Check that the reward's view weights name existing views and are not all 0."""
        key, weights, views = "post_training.reward.view_weights", self.post_training.reward.view_weights, self.episodes.views
        for view in weights:
            require(view in views, key, view, f"no such view; {nearest(view, views)}")
        require(any(weights.get(view, 1.0) > 0 for view in views), key, weights, "all views weigh 0: nothing would be rewarded")

    @property
    def rollout_frames(self) -> int:
        """Number of distinct frames in an evaluation rollout, including the first."""
        return self.rollout.chunks * (self.world_model.future - 1) + 1

    def for_run(self, run: str) -> "Params":
        """The parameters for training and rolling out model `run`: these, with a variant's changes applied if `run` is a variant.

        Also of derived runs (config/derived.py). Raises UserError if `run` is not a model, and if a variant's change is impossible (naming
        `variants.NAME.section.key`).
        """
        if run in [model.name for model in FIXED]:
            return self
        if run not in self.variants:
            if "-" in run and run in self.derived.params:  # only derived names have a hyphen
                return self.derived.params[run]
            names = (model.name for model in FIXED)
            raise UserError(f"variants.{run}: no such model; {nearest(run, [*names, *self.variants])}")
        given, where = self.variants[run] or VariantConfig(), f"variants.{run}"
        changed = overlaid(self, given, where)
        chunks = changed.rollout.chunks
        require(chunks == self.rollout.chunks, f"{where}.rollout.chunks", chunks, "all models are rolled out for as long: leave it out")
        return changed

    @cached_property
    def models(self) -> Models:
        """The fixed models and the variants. Variants whose training is the same share a checkpoint. Bases are shared in the same way."""
        return self._registries[0]

    @cached_property
    def derived(self) -> Derived:
        """The runs of the ablations and of the table of speed."""
        _, checkpoints, bases = self._registries
        return derive(self, dict(checkpoints), dict(bases))

    @cached_property
    def all_models(self) -> Models:
        """All that can be trained, rolled out and scored: `models` and the derived ones."""
        return Models((*self.models.variants, *self.derived.models.values()))

    @cached_property
    def _registries(self) -> tuple[Models, dict[str, str], dict[str, str]]:
        """The file's own models; training digest -> checkpoint; digest of base_checkpoint -> folder."""
        checkpoints, bases, found = {training_digest(self): "post_trained"}, {digest(self.base_checkpoint): "base"}, []
        for name, given in self.variants.items():
            run = self.for_run(name)
            checkpoint = checkpoints.setdefault(training_digest(run), name)
            base = bases.setdefault(digest(run.base_checkpoint), f"{name}_base")
            found.append(variant(name, given.label if given else "", checkpoint, base))
        return Models(tuple(found)), checkpoints, bases


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file. Raises UserError, which names the key, if anything is wrong."""
    raw = read_yaml(path)
    try:
        params = build_section(Params, raw, "")
        params.check()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return params


def control_sections(whole: Params) -> tuple[PostTrainingConfig, BaseTrainingConfig, ControlConfig]:
    """The sections that determine the control `teacher_forced`."""
    return whole.post_training, whole.base_training, whole.control


def own_history_sections(whole: Params) -> tuple[PostTrainingConfig, OwnHistoryConfig]:
    """The sections that determine the control `own_history`."""
    return whole.post_training, whole.own_history
