"""Parameters of optimisers, teacher forcing and the control."""

from dataclasses import dataclass, field
from typing import Literal

from persistworld.config.checks import a_decay, at_least, positive, require, within_unit


@dataclass(frozen=True)
class OptimizerConfig:
    name: Literal["muon", "adamw"] = "muon"  # muon: torch.optim.Muon for matrices, AdamW for the rest
    learning_rate: float = 1e-4
    adjust_lr: Literal["original", "match_rms_adamw"] = "match_rms_adamw"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    decay_from: float = 1.0  # fraction of the steps after which the learning rate falls linearly to 0; 1: constant

    def check(self, where: str) -> None:
        positive(self, where, "learning_rate", "clip_norm")
        at_least(0, self, where, "weight_decay")
        within_unit(self, where, "decay_from")


@dataclass(frozen=True)
class BaseTrainingConfig:
    """Teacher forcing as in Ctrl-World."""

    start_from: str = ""  # checkpoint folder that provides initial weights, tokenizer and autoencoder; "": random weights
    keep: Literal["all", "autoencoder"] = "all"  # what is used of start_from; autoencoder: the world model starts from random weights
    autoencoder_steps: int = 0  # 0: uses the autoencoder of start_from
    autoencoder_episodes: int = 200  # the first training episodes; their frames are held in memory
    autoencoder_batch: int = 48
    autoencoder_optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    perceptual_steps: int = 0  # 0: uses start_from's perceptual network if it has one, else a published one (AlexNet)
    steps: int = 100_000
    batch: int = 32
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(name="adamw", learning_rate=1e-5, weight_decay=0.01))
    warmup: int = 0  # steps over which the learning rate rises linearly
    weight_ema: float = 0.0  # decay of the moving average, which is saved; 0: saves the last weights
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    sigma_mean: float = 0.7  # ln sigma ~ N(mean, std^2)
    sigma_std: float = 1.6
    history_noise: float = 0.3
    current_noise: float = 0.2
    action_dropout: float = 0.05
    frame_skips: tuple[int, ...] = (1, 2)
    history_rule: Literal["skip", "buffer"] = "skip"  # skip: every 4 * frame_skip frames (Ctrl-World); buffer: as a rollout reads
    history_collapse: float = 0.15  # probability that the history repeats the current frame

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
    """The control `teacher_forced`: more teacher forcing. Weights and budget come from `post_training`, the loss from `base_training`."""

    batch: int = 32
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def check(self) -> None:
        at_least(1, self, "control", "batch")
        self.optimizer.check("control.optimizer")


@dataclass(frozen=True)
class OwnHistoryConfig:
    """The control `own_history`: supervision on the model's own rollouts. All other settings and the budget come from `post_training`."""

    kl_weight: float = 1e-4  # of the KL-to-base term; supervised gradients are longer than RL's, so this anchor is tuned on its own
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def check(self) -> None:
        at_least(0, self, "own_history", "kl_weight")
        self.optimizer.check("own_history.optimizer")
