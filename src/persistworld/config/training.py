"""Optimisers, teacher forcing and the control."""

from dataclasses import dataclass, field
from typing import Literal

from persistworld.config.checks import a_decay, at_least, positive, require, within_unit


@dataclass(frozen=True)
class OptimizerConfig:
    name: Literal["muon", "adamw"] = "muon"  # muon: matrices by torch.optim.Muon, the rest by AdamW
    learning_rate: float = 1e-4
    adjust_lr: Literal["original", "match_rms_adamw"] = "match_rms_adamw"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    decay_from: float = 1.0  # share of the steps after which the rate falls linearly to 0; 1: constant

    def check(self, where: str) -> None:
        positive(self, where, "learning_rate", "clip_norm")
        at_least(0, self, where, "weight_decay")
        within_unit(self, where, "decay_from")


@dataclass(frozen=True)
class BaseTrainingConfig:
    """Teacher forcing as in Ctrl-World."""

    start_from: str = ""  # a checkpoint folder whose weights, tokenizer and autoencoder the training begins with; "": from nothing
    autoencoder_steps: int = 0  # 0: the autoencoder is start_from's
    autoencoder_episodes: int = 200  # the first so many training episodes: their frames are held in memory
    autoencoder_batch: int = 48
    autoencoder_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    perceptual_steps: int = 0  # 0: the perceptual network is start_from's, if it has one, or a given (AlexNet)
    steps: int = 100_000
    batch: int = 32
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(name="adamw", learning_rate=1e-5, weight_decay=0.01))
    warmup: int = 0  # steps of linearly rising rate
    weight_ema: float = 0.0  # 0: the last weights are kept
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    sigma_mean: float = 0.7  # ln sigma ~ N(mean, std^2)
    sigma_std: float = 1.6
    history_noise: float = 0.3
    current_noise: float = 0.2
    action_dropout: float = 0.05
    frame_skips: tuple[int, ...] = (1, 2)
    history_rule: Literal["skip", "buffer"] = "skip"  # skip: every 4 * frame_skip frames (Ctrl-World); buffer: as rollouts look back
    history_collapse: float = 0.15  # probability of a history that repeats the current frame

    def check(self) -> None:
        where = "base_training"
        at_least(1, self, where, "autoencoder_episodes", "autoencoder_batch", "steps", "batch")
        at_least(0, self, where, "autoencoder_steps", "perceptual_steps", "warmup")
        at_least(0, self, where, "sigma_std", "history_noise", "current_noise")
        within_unit(self, where, "action_dropout", "history_collapse")
        a_decay(self, where, "weight_ema")
        self.autoencoder_optimizer.check(f"{where}.autoencoder_optimizer")
        self.optimizer.check(f"{where}.optimizer")
        skips = len(self.frame_skips) >= 1 and min(self.frame_skips) >= 1
        require(skips, "base_training.frame_skips", self.frame_skips, "name at least one; 1 is every frame")


@dataclass(frozen=True)
class ControlConfig:
    """`teacher_forced`: teacher forcing goes on. Of which weights and for how long, `post_training` says; on what, `base_training`."""

    batch: int = 32
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def check(self) -> None:
        at_least(1, self, "control", "batch")
        self.optimizer.check("control.optimizer")
