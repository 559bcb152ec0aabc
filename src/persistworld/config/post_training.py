"""Parameters of post-training (Algorithm 1): groups, objective, reward, adapter."""

from dataclasses import dataclass, field
from typing import Literal

from persistworld.config.checks import a_decay, at_least, positive, require, within_unit
from persistworld.config.training import OptimizerConfig
from persistworld.config.world_model import SamplerConfig


@dataclass(frozen=True)
class RewardConfig:
    """The reward, paper 3.4, Eq. 3-5. `credit` is the unit that gets a reward: the clip (paper) or a part of it (docs/objective.md)."""

    lpips: float = 1.0
    ssim: float = 1.0
    psnr: float = 1.0 / 32.0
    view_weights: dict[str, float] = field(default_factory=dict)  # weight per view; views that are not named have weight 1 (Table 8)
    credit: Literal["clip", "view_frame", "cell", "element", "latent"] = "clip"  # latent: the error of the latents, no image is decoded
    target: Literal["raw", "decoded"] = "raw"  # raw: the dataset's ground-truth frames; decoded: their autoencoder reconstruction
    epsilon: float = 1e-4  # of Eq. 6

    def check(self, where: str) -> None:
        at_least(0, self, where, "lpips", "ssim", "psnr")
        positive(self, where, "epsilon")
        for key in ("lpips", "ssim", "psnr", "target"):
            seen = self.credit != "latent" or getattr(self, key) == getattr(RewardConfig, key)
            require(seen, f"{where}.{key}", getattr(self, key), "credit: latent decodes no image: remove this key, or change credit")
        rewarded = self.lpips + self.ssim + self.psnr > 0
        require(rewarded, f"{where}.ssim", self.ssim, "lpips, ssim and psnr are all 0: nothing would be rewarded")
        for view, weight in self.view_weights.items():
            require(weight >= 0, f"{where}.view_weights.{view}", weight, "must be at least 0")


@dataclass(frozen=True)
class AdapterConfig:
    rank: int = 64
    alpha: float = 64.0
    targets: Literal["attention", "linear", "linear_and_convolution"] = "attention"
    exclude: tuple[str, ...] = ()  # modules whose names contain one of these get no adapter

    def check(self, where: str) -> None:
        at_least(1, self, where, "rank")
        positive(self, where, "alpha")


@dataclass(frozen=True)
class PostTrainingConfig:
    """Algorithm 1: K candidates, of which the N best and N worst are kept, prefix P ~ Unif{prefix}, F chunks per candidate."""

    steps: int = 8_000
    groups: int = 64  # groups per step over all ranks
    candidates: int = 16  # K
    keep: int = 5  # N; 0 keeps all
    prefix: tuple[int, int] = (0, 9)  # [shortest, longest], inclusive; equal values give a fixed length (Table 5)
    prefix_schedule: Literal["random", "curriculum"] = "random"
    streams: bool = False  # each group's next step continues one of its candidates at random, which saves rolling out a new prefix
    branch: int = 1  # F
    sampling_policy: Literal["theta", "old"] = "theta"  # Algorithm 1 samples from theta, the theory assumes old
    beta: float = 1.0
    kl_weight: float = 1e-4
    kl_prefix: int = -1  # longest prefix of samples in the KL term (each costs a forward pass of the base); -1: all samples
    loss_weighting: Literal["plain", "edm", "self_normalised"] = "plain"
    shared_noise: bool = False  # one draw of sigma and noise per group
    sigma_mean: float = 0.7  # ln sigma ~ N(mean, std^2)
    sigma_std: float = 1.6
    old_ema_slope: float = 0.001  # d = min(slope * step, max); old <- d old + (1 - d) theta. 0: old is theta, which saves a forward pass
    old_ema_max: float = 0.5
    weight_ema: float = 0.0  # decay of the moving average of theta, which is saved (Table 11); 0: saves theta
    train_action_encoder: bool = True
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    lora: AdapterConfig = field(default_factory=AdapterConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    precision: Literal["float32", "bfloat16"] = "bfloat16"

    @property
    def kept(self) -> int:
        """Number of candidates per group that enter the loss."""
        return 2 * self.keep or self.candidates

    @property
    def old_is_theta(self) -> bool:
        """Whether the reference policy equals theta at each step."""
        return self.old_ema_slope == 0 or self.old_ema_max == 0

    def check(self) -> None:
        self.sampler.check("post_training.sampler")
        require(self.candidates >= 2, "post_training.candidates", self.candidates, "K must be at least 2: a group's candidates are ranked")
        require(
            0 <= 2 * self.keep <= self.candidates, "post_training.keep", self.keep,
            f"N best and N worst must fit in K = {self.candidates}: choose N <= {self.candidates // 2} (0 keeps all)",
        )
        require(0 <= self.prefix[0] <= self.prefix[1], "post_training.prefix", self.prefix, "give [shortest, longest], both at least 0")
        require(
            not self.streams or (self.prefix[0] == 0 and self.prefix_schedule == "random"), "post_training.streams", self.streams,
            "a stream passes through all prefixes from 0 on: let prefix start at 0 and prefix_schedule be random",
        )
        require(self.branch >= 1, "post_training.branch", self.branch, "F must be at least 1")
        require(self.beta > 0, "post_training.beta", self.beta, "must be positive: beta = 0 gives no gradient")
        where = "post_training"
        at_least(1, self, where, "steps", "groups")
        at_least(0, self, where, "kl_weight", "sigma_std", "old_ema_slope")
        within = self.kl_prefix == -1 or self.kl_prefix >= self.prefix[0]
        advice = f"no prefix is so short: choose {self.prefix[0]} (the shortest) or more, or -1 for all"
        require(within, f"{where}.kl_prefix", self.kl_prefix, advice)
        within_unit(self, where, "old_ema_max")
        a_decay(self, where, "weight_ema")
        self.reward.check(f"{where}.reward")
        self.lora.check(f"{where}.lora")
        self.optimizer.check(f"{where}.optimizer")
        weights = set(self.reward.view_weights.values())
        require(
            self.reward.credit == "clip" or weights <= {1.0}, "post_training.reward.view_weights", self.reward.view_weights,
            "only a clip's reward averages over views: set reward.credit to clip, or remove the weights",
        )
