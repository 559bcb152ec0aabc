"""The parameters of one run: what trains, rolls out and scores one model."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Self

from persistworld.config.checks import require
from persistworld.config.compute import ComputeConfig
from persistworld.config.data import BaseCheckpointConfig, EpisodesConfig, LatentsConfig, MasksConfig
from persistworld.config.evaluation import LPIPS_SMALLEST, EvaluationConfig, MetricsConfig, PaperConfig
from persistworld.config.policies import PoliciesConfig
from persistworld.config.post_training import PostTrainingConfig
from persistworld.config.reading import nearest
from persistworld.config.training import BaseTrainingConfig, ControlConfig, OwnHistoryConfig
from persistworld.config.world_model import RolloutConfig, WorldModelConfig


@dataclass(frozen=True)
class RunParams:
    """The sections that one run reads. A variant's are those of the parameter file with its changes applied."""

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

    def with_sections(self, **sections: Any) -> Self:
        """The parameters of another run: these, with some sections replaced."""
        return dataclasses.replace(self, **sections)

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
            f"needs views of at least {needed} pixels, but the smaller of episodes.height and width is {smallest}: enlarge it, or choose "
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
        require(any(weights.get(view, 1.0) > 0 for view in views), key, weights, "all views have weight 0: nothing would be rewarded")

    @property
    def rollout_frames(self) -> int:
        """Number of distinct frames in an evaluation rollout, including the first."""
        return self.rollout.chunks * (self.world_model.future - 1) + 1
