"""Typed parameters: one frozen dataclass per section of `params.yaml`.

Defaults are the paper's values (arXiv 2603.25685, section 4 and appendices B, E) or, where the paper is silent, those of
the system that it builds on (Ctrl-World, DiffusionNFT). A key that no dataclass names is refused, with the nearest
name; so are wrong types and impossible values.
"""

import dataclasses
import difflib
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from persistworld.config.checks import a_decay, at_least, distinct, positive, require, within_unit
from persistworld.config.reading import build_section, merge, nearest, read_yaml
from persistworld.runtime.errors import UserError
from persistworld.runtime.workspace import EPISODES

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
VARIANT = re.compile(r"[a-z][a-z0-9_]*")  # it becomes part of file names
BUFFER_FILL = 24  # copies of the first latent that a rollout's history buffer starts with (Ctrl-World's evaluation)
NETWORKS_GROUPS = 32  # diffusers' U-Net and autoencoder normalise over so many groups of channels

RESERVED_MODELS = ("base", "post_trained", "teacher_forced", "copy_frame", "autoencoder")
BASELINES = ("copy_frame", "autoencoder")
# What lies where a variant's files would: in results/metrics/ (its numbers), checkpoints/ and runs/.
TAKEN_NAMES = (
    "table_1", "table_2", "paired", "paired_details", "masks", "fetched", "episodes", "latents", "base_checkpoint", "base_training",
)  # fmt: skip
TABLETOP = "tabletop"

View = str
Colour = Literal["red", "green", "blue", "yellow", "magenta", "orange"]  # the simulator's, data/tasks.py


@dataclass(frozen=True)
class Episodes:
    """Where episodes come from and how they are split."""

    source: Literal["simulate", "folder"] = "folder"  # simulate: the PyBullet tabletop; folder: LeRobot or Ctrl-World layout at `path`
    path: str = "../droid_1.0.1"  # simulate: data/episodes; folder: anywhere else, for the stage `episodes` replaces data/episodes
    count: int = 95_600  # indices 0 .. count-1 are considered
    splits: tuple[str, ...] = ("train", "validation")  # which splits are made or read at all
    modulus: int = 100  # DROID: index % 100 == 99 is validation
    validation: tuple[int, ...] = (99,)
    tuning: tuple[int, ...] = ()
    frames: int = 61  # simulated frames per episode
    height: int = 192  # pixels per view that the world model sees
    width: int = 320
    fps: float = 5.0  # after frame skip
    colours: tuple[Colour, ...] = typing.get_args(Colour)  # simulate: of the manipulated object
    views: tuple[View, ...] = ("exterior_1", "exterior_2", "wrist")
    bad_share: float = 0.05  # a larger share of unusable episodes fails the stage

    def check(self) -> None:
        own = Path(self.path).resolve() == EPISODES.resolve()
        require(self.source == "simulate" or not own, "episodes.path", self.path, "the workflow replaces it: keep your data set elsewhere")
        at_least(1, self, "episodes", "count", "modulus", "frames", "height", "width")
        require(1 <= len(self.views) <= 4, "episodes.views", self.views, "name one to four views")
        distinct(self, "episodes", "views", "splits")
        within_unit(self, "episodes", "bad_share")
        require(len(self.colours) >= 1, "episodes.colours", self.colours, "name at least one")
        positive(self, "episodes", "fps")
        require(len(self.splits) >= 1, "episodes.splits", self.splits, "choose from train, tuning, validation")
        for name in ("validation", "tuning"):
            residues = getattr(self, name)
            require(all(0 <= r < self.modulus for r in residues), f"episodes.{name}", residues, f"residues lie in 0..{self.modulus - 1}")
        require(not set(self.validation) & set(self.tuning), "episodes.tuning", self.tuning, "shares a residue with episodes.validation")
        for split in self.splits:
            require(split in ("train", "tuning", "validation"), "episodes.splits", split, "choose from train, tuning, validation")


@dataclass(frozen=True)
class BaseCheckpoint:
    """The pre-trained world model: where it is fetched from."""

    source: Literal["file", "https", "hf"] = "hf"
    location: str = "yjguo/Ctrl-World"  # a folder, a URL ending in .tar, or a hub repository
    revision: str | None = None  # hf: a commit hash; branches move, so they are refused
    sha256: dict[str, str] = field(default_factory=dict)  # file name -> digest; recorded at first download, enforced after

    def check(self) -> None:
        if self.source == "hf":
            mend = "pin a commit hash for source hf, 40 hex digits: `hf models info` of the repository prints the newest as sha"
            require(self.revision is not None, "base_checkpoint.revision", self.revision, mend)
            moves = not COMMIT.fullmatch(self.revision or "")
            require(not moves, "base_checkpoint.revision", self.revision, f"branches and tags move: {mend}")
        for name, digest in self.sha256.items():
            require(bool(SHA256.fullmatch(digest)), f"base_checkpoint.sha256.{name}", digest, "a digest has 64 hex digits")


@dataclass(frozen=True)
class Latents:
    """The autoencoder encodes every view of every frame once."""

    source: Literal["encode", "recorded"] = "encode"  # recorded: those that lie with the episodes (Ctrl-World's processed layout)
    posterior: Literal["mean", "sample"] = "sample"
    batch: int = 64  # images per encoder call
    shards: int = 8  # files, and jobs that can run side by side

    def check(self) -> None:
        at_least(1, self, "latents", "batch", "shards")


@dataclass(frozen=True)
class Autoencoder:
    """diffusers' AutoencoderKLTemporalDecoder (SVD's class); `patch` folds pixels into channels before it (1 = SVD)."""

    patch: int = 1
    latent_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    scaling_factor: float = 0.18215


@dataclass(frozen=True)
class UNet:
    """diffusers' UNetSpatioTemporalConditionModel (SVD's class), at SVD's size by default."""

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    heads: tuple[int, ...] = (5, 10, 20, 20)
    layers: int = 2
    cross_attention_dim: int = 1024
    addition_time_embed_dim: int = 256


@dataclass(frozen=True)
class TextEncoder:
    """transformers' CLIPTextModelWithProjection, at ViT-B/32's size by default."""

    hidden: int = 512
    layers: int = 12
    heads: int = 8
    projection: int = 512
    vocabulary: int = 49_408
    length: int = 77


@dataclass(frozen=True)
class WorldModel:
    """Ctrl-World's architecture. Only `base_training` and imports read sizes from here. A checkpoint folder brings its
    own: the stage `base_checkpoint` refuses parameters that contradict it, but `use_text: false` leaves its text out.
    """

    autoencoder: Autoencoder = field(default_factory=Autoencoder)
    unet: UNet = field(default_factory=UNet)
    text_encoder: TextEncoder = field(default_factory=TextEncoder)
    history: int = 6  # H
    future: int = 5  # L
    rotation: Literal["euler", "continuous"] = "euler"  # continuous: the first two columns of the rotation matrix, no jump at +-pi
    use_text: bool = True

    def check(self) -> None:
        at_least(1, self, "world_model", "history")
        unet, autoencoder, text = self.unet, self.autoencoder, self.text_encoder
        at_least(1, autoencoder, "world_model.autoencoder", "patch", "latent_channels", "layers")
        positive(autoencoder, "world_model.autoencoder", "scaling_factor")
        at_least(1, unet, "world_model.unet", "layers", "cross_attention_dim", "addition_time_embed_dim")
        at_least(1, text, "world_model.text_encoder", "hidden", "layers", "heads", "projection", "vocabulary", "length")
        for name, channels in (("autoencoder", autoencoder.channels), ("unet", unet.channels)):
            fit = len(channels) >= 1 and all(c > 0 and c % NETWORKS_GROUPS == 0 for c in channels)
            require(fit, f"world_model.{name}.channels", channels, f"give a multiple of {NETWORKS_GROUPS} for each level")
        require(len(unet.channels) == len(unet.heads), "world_model.unet.heads", unet.heads, "one number per entry of unet.channels")
        shared = all(h >= 1 and c % h == 0 for c, h in zip(unet.channels, unet.heads, strict=True))
        require(shared, "world_model.unet.heads", unet.heads, f"each must divide its entry of unet.channels, {unet.channels}")
        require(text.hidden % text.heads == 0, "world_model.text_encoder.heads", text.heads, f"must divide hidden = {text.hidden}")
        projection = text.projection
        require(
            unet.cross_attention_dim % projection == 0, "world_model.text_encoder.projection", projection,
            "must divide unet.cross_attention_dim: the text embedding is repeated to that width",
        )


@dataclass(frozen=True)
class Optimizer:
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
class BaseTraining:
    """Teacher forcing as in Ctrl-World."""

    start_from: str = ""  # a checkpoint folder whose weights, tokenizer and autoencoder the training begins with; "": from nothing
    autoencoder_steps: int = 0  # 0: the autoencoder is start_from's
    autoencoder_episodes: int = 200  # the first so many training episodes: their frames are held in memory
    autoencoder_batch: int = 48
    autoencoder_optimizer: Optimizer = field(default_factory=Optimizer)
    perceptual_steps: int = 0  # 0: the perceptual network is start_from's, if it has one, or a given (AlexNet)
    steps: int = 100_000
    batch: int = 32
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(name="adamw", learning_rate=1e-5, weight_decay=0.01))
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
    train_batch: int = 0  # windows per backward pass; the gradient is accumulated over them; 0: all of a process's share of `batch`
    gradient_checkpointing: bool = False  # activations are computed twice instead of kept
    readers: int = 0  # processes that draw the next steps' windows while one is computed: a GPU must not wait for them
    torch_compile: Literal["none", "default", "reduce-overhead"] = "none"  # the U-Net's; reduce-overhead: as CUDA graphs
    save_every: int = 500

    def check(self) -> None:
        where = "base_training"
        at_least(1, self, where, "autoencoder_episodes", "autoencoder_batch", "steps", "batch", "save_every")
        at_least(0, self, where, "autoencoder_steps", "perceptual_steps", "warmup", "readers")
        at_least(0, self, where, "sigma_std", "history_noise", "current_noise")
        within_unit(self, where, "action_dropout", "history_collapse")
        a_decay(self, where, "weight_ema")
        self.autoencoder_optimizer.check(f"{where}.autoencoder_optimizer")
        self.optimizer.check(f"{where}.optimizer")
        skips = len(self.frame_skips) >= 1 and min(self.frame_skips) >= 1
        require(skips, "base_training.frame_skips", self.frame_skips, "name at least one; 1 is every frame")
        require(self.train_batch >= 0, "base_training.train_batch", self.train_batch, "must be at least 1, or 0 for all at once")


@dataclass(frozen=True)
class Sampler:
    """Euler sampler on Karras sigmas; SVD's configuration by default. `guidance` 1 is none (paper, appendix E.1)."""

    steps: int = 50
    sigma_max: float = 700.0
    sigma_min: float = 0.002
    rho: float = 7.0
    guidance: float = 1.0  # ramped 1 .. guidance over the future frames, as in Ctrl-World
    noise_aug: float = 0.02

    def check(self, where: str) -> None:
        at_least(1, self, where, "steps")
        at_least(0, self, where, "noise_aug")
        positive(self, where, "rho")
        require(0 < self.sigma_min < self.sigma_max, f"{where}.sigma_min", self.sigma_min, "must lie between 0 and sigma_max")
        require(self.guidance >= 1, f"{where}.guidance", self.guidance, "1 is no guidance; smaller has no meaning")


@dataclass(frozen=True)
class Rollout:
    """Autoregressive rollouts (paper 3.1; Ctrl-World's evaluation)."""

    sampler: Sampler = field(default_factory=Sampler)
    chunks: int = 14  # 14 * 4 + 1 = 57 distinct frames
    history_index: tuple[int, ...] = (0, 0, -8, -6, -4, -2)  # of the buffer, one latent per chunk; policy script: 0 0 -12 -9 -6 -3
    batch: int = 8  # episodes rolled out together
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    # The U-Net channels-last and through torch.compile (on a GPU as a CUDA graph): minutes once, less time a chunk; rounding differs.
    torch_compile: bool = False

    def check(self) -> None:
        self.sampler.check("rollout.sampler")
        at_least(1, self, "rollout", "chunks", "batch")
        past = all(-BUFFER_FILL <= i <= 0 for i in self.history_index)
        require(
            past, "rollout.history_index", self.history_index,
            f"0 is the first latent, negatives count from the end, at first of {BUFFER_FILL}: choose from -{BUFFER_FILL} to 0",
        )


@dataclass(frozen=True)
class Reward:
    """Paper 3.4, Eq. 3-5. `credit` is the granularity at which a reward is normalised and credited; the paper's is the clip."""

    lpips: float = 1.0
    ssim: float = 1.0
    psnr: float = 1.0 / 32.0
    view_weights: dict[str, float] = field(default_factory=dict)  # a view that is not named weighs 1 (Table 8)
    credit: Literal["clip", "view_frame", "cell", "latent"] = "clip"  # latent: error of latents, not of images (docs/objective.md)
    target: Literal["raw", "decoded"] = "raw"  # ground-truth frames of the dataset, or their autoencoder reconstruction
    epsilon: float = 1e-4  # of Eq. 6

    def check(self, where: str) -> None:
        at_least(0, self, where, "lpips", "ssim", "psnr")
        positive(self, where, "epsilon")
        for key in ("lpips", "ssim", "psnr", "target"):
            seen = self.credit != "latent" or getattr(self, key) == getattr(Reward, key)
            require(seen, f"{where}.{key}", getattr(self, key), "credit: latent looks at no image: drop it, or set another credit")
        rewarded = self.lpips + self.ssim + self.psnr > 0
        require(rewarded, f"{where}.ssim", self.ssim, "lpips, ssim and psnr are all 0: nothing would be rewarded")
        for view, weight in self.view_weights.items():
            require(weight >= 0, f"{where}.view_weights.{view}", weight, "must be at least 0")


@dataclass(frozen=True)
class Lora:
    rank: int = 64
    alpha: float = 64.0
    targets: Literal["attention", "linear", "linear_and_convolution"] = "attention"
    exclude: tuple[str, ...] = ()  # modules whose names have one of these in them get no adapter
    merged: bool = False  # train through W + B A instead of layers of A and B: a quarter faster where layers are narrow, dear where wide

    def check(self, where: str) -> None:
        at_least(1, self, where, "rank")
        positive(self, where, "alpha")


@dataclass(frozen=True)
class PostTraining:
    """Algorithm 1. K candidates, N best and N worst kept, prefix P ~ Unif{prefix}, F chunks per candidate."""

    steps: int = 8_000
    groups: int = 64  # groups per step, over all ranks
    candidates: int = 16  # K
    keep: int = 5  # N; 0 keeps all
    prefix: tuple[int, int] = (0, 9)  # inclusive; equal numbers fix it (Table 5)
    prefix_schedule: Literal["random", "curriculum"] = "random"
    streams: bool = False  # a random candidate of each group goes on to the next step, instead of a new prefix for every group
    branch: int = 1  # F
    sampling_policy: Literal["theta", "old"] = "theta"  # Algorithm 1 samples from theta; the theory assumes old
    beta: float = 1.0
    kl_weight: float = 1e-4
    kl_prefix: int = -1  # the KL term is the mean over samples whose prefix is no longer (a forward pass of the base each); -1: over all
    loss_weighting: Literal["plain", "edm", "self_normalised"] = "plain"
    shared_noise: bool = False  # one sigma and noise draw for a group
    sigma_mean: float = 0.7  # ln sigma ~ N(mean, std^2)
    sigma_std: float = 1.6
    old_ema_slope: float = 0.001  # d = min(slope * step, max); old <- d old + (1 - d) theta. At 0 old is theta, and a forward pass is saved
    old_ema_max: float = 0.5
    weight_ema: float = 0.0  # of the learning policy (Table 11); 0: none
    train_action_encoder: bool = True
    sampler: Sampler = field(default_factory=Sampler)
    reward: Reward = field(default_factory=Reward)
    lora: Lora = field(default_factory=Lora)
    optimizer: Optimizer = field(default_factory=Optimizer)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    sample_batch: int = 0  # groups' prefixes or candidates that are sampled at once; 0: all of a process's
    train_batch: int = 16  # candidates per backward pass; the gradient is accumulated over them
    gradient_checkpointing: bool = False  # the update computes activations twice instead of keeping them
    save_every: int = 100

    @property
    def kept(self) -> int:
        """Candidates of a group that are trained on."""
        return 2 * self.keep or self.candidates

    @property
    def old_is_theta(self) -> bool:
        """Whether the reference follows the learner in one step."""
        return self.old_ema_slope == 0 or self.old_ema_max == 0

    def check(self) -> None:
        self.sampler.check("post_training.sampler")
        require(self.candidates >= 2, "post_training.candidates", self.candidates, "K must be at least 2: one alone cannot be ranked")
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
        at_least(1, self, where, "steps", "groups", "train_batch", "save_every")
        at_least(0, self, where, "kl_weight", "sigma_std", "old_ema_slope")
        within = self.kl_prefix == -1 or self.kl_prefix >= self.prefix[0]
        mend = f"no prefix is so short: choose {self.prefix[0]} (the shortest) or more, or -1 for all"
        require(within, f"{where}.kl_prefix", self.kl_prefix, mend)
        within_unit(self, where, "old_ema_max")
        a_decay(self, where, "weight_ema")
        self.reward.check(f"{where}.reward")
        self.lora.check(f"{where}.lora")
        self.optimizer.check(f"{where}.optimizer")
        weights = set(self.reward.view_weights.values())
        require(
            self.reward.credit == "clip" or weights <= {1.0}, "post_training.reward.view_weights", self.reward.view_weights,
            "views are weighed against each other in a clip's reward only: set reward.credit to clip, or drop the weights",
        )
        require(self.sample_batch >= 0, "post_training.sample_batch", self.sample_batch, "must be at least 1, or 0 for all at once")


@dataclass(frozen=True)
class Control:
    """`teacher_forced`: teacher forcing goes on. Of which weights and for how long, `post_training` says; on what, `base_training`."""

    batch: int = 32
    optimizer: Optimizer = field(default_factory=Optimizer)

    def check(self) -> None:
        at_least(1, self, "control", "batch")
        self.optimizer.check("control.optimizer")


@dataclass(frozen=True)
class Metrics:
    """How frames are scored (paper, section 4)."""

    lpips: Literal["alex", "vgg", "squeeze", "tabletop"] = "alex"  # tabletop: the small network shipped with the tabletop base checkpoint
    ssim_window: int = 7  # uniform window, data range 255
    masked_lpips: Literal["multiplied", "spatial"] = "multiplied"

    def check(self) -> None:
        require(self.ssim_window % 2 == 1 and self.ssim_window >= 3, "metrics.ssim_window", self.ssim_window, "must be odd and at least 3")


@dataclass(frozen=True)
class Masks:
    source: Literal["simulator", "roboengine", "none"] = "roboengine"
    batch: int = 16

    def check(self) -> None:
        at_least(1, self, "masks", "batch")


@dataclass(frozen=True)
class Evaluation:
    split: Literal["validation", "tuning"] = "validation"
    episodes: int = 0  # 0: all of the split
    seeds: tuple[int, ...] = (0,)
    models: tuple[str, ...] = ("copy_frame", "base", "teacher_forced", "post_trained", "autoencoder")
    protocol: Literal["decoded", "raw"] = "decoded"  # the headline; both are always scored

    def check(self) -> None:
        require(self.episodes >= 0, "evaluation.episodes", self.episodes, "must be at least 1, or 0 for all of the split")
        require(len(self.seeds) >= 1, "evaluation.seeds", self.seeds, "give at least one seed")
        require(len(self.models) >= 1, "evaluation.models", self.models, "name at least one")
        distinct(self, "evaluation", "seeds", "models")
        narrow = all(-1 << 15 <= seed < 1 << 15 for seed in self.seeds)
        require(narrow, "evaluation.seeds", self.seeds, "the score table keeps 16 bits of a seed: choose from -32768 to 32767")

    def require_models(self, names: tuple[str, ...], purpose: str) -> None:
        """Raise UserError unless all of `names` are among the models; tables do without any of them, `purpose` does not."""
        lacking = [name for name in names if name not in self.models]
        mend = f"{purpose} compare {' with '.join(names)}: add {', '.join(lacking)}, or ask for the tables alone"
        require(not lacking, "evaluation.models", ", ".join(self.models), mend)


@dataclass(frozen=True)
class Paper:
    """Tables, figures and the report."""

    bootstrap: int = 2_000
    confidence: float = 0.95
    strip_frames: int = 8  # columns of Figure 3
    report_episodes: int = 4  # playable rollouts in the report
    scale: str = "tabletop"  # written on every table and figure; with any other text than `tabletop` the workflow's jobs ask for a GPU

    def check(self) -> None:
        at_least(1, self, "paper", "bootstrap", "strip_frames")
        at_least(0, self, "paper", "report_episodes")
        # Any text may stand here, but this one says that jobs need no GPU (workflow/rules/common.smk): a slip would ask for some.
        plain = self.scale.strip().lower()
        slip = self.scale != TABLETOP and (plain.startswith(TABLETOP) or difflib.get_close_matches(plain, [TABLETOP], cutoff=0.8))
        require(not slip, "paper.scale", self.scale, f"did you mean '{TABLETOP}'? That very text makes jobs ask for no GPU")
        require(0 < self.confidence < 1, "paper.confidence", self.confidence, "must lie between 0 and 1, e.g. 0.95")


@dataclass(frozen=True)
class Params:
    """The whole of `params.yaml`."""

    preset: str = "droid"
    seed: int = 0
    episodes: Episodes = field(default_factory=Episodes)
    base_checkpoint: BaseCheckpoint = field(default_factory=BaseCheckpoint)
    latents: Latents = field(default_factory=Latents)
    world_model: WorldModel = field(default_factory=WorldModel)
    base_training: BaseTraining = field(default_factory=BaseTraining)
    rollout: Rollout = field(default_factory=Rollout)
    post_training: PostTraining = field(default_factory=PostTraining)
    control: Control = field(default_factory=Control)
    masks: Masks = field(default_factory=Masks)
    metrics: Metrics = field(default_factory=Metrics)
    evaluation: Evaluation = field(default_factory=Evaluation)
    paper: Paper = field(default_factory=Paper)
    variants: dict[str, Any] = field(default_factory=dict)  # name -> keys of post_training that differ; one more model each

    def check(self) -> None:
        """Raise UserError at the first value that is impossible, by itself or beside the others, in any run."""
        self._check_run()
        for name in self.variants:
            require(name not in RESERVED_MODELS, "variants", name, "is the name of a model that always exists: choose another")
            require(name not in TAKEN_NAMES, "variants", name, "is the name of files that other stages write: choose another")
            lower = bool(VARIANT.fullmatch(name))
            require(lower, "variants", name, "names files: write small letters, digits and _ only, a letter first")
            self.for_run(name)
        known = (*RESERVED_MODELS, *self.variants)
        for name in self.evaluation.models:
            require(name in known, "evaluation.models", name, f"no such model or variant; {nearest(name, known)}")

    def _check_run(self) -> None:
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
        # Who reads training episodes alone (to make a base model) evaluates nothing.
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
        """A reward's weights are of views that there are, and not all of them 0."""
        key, weights, views = "post_training.reward.view_weights", self.post_training.reward.view_weights, self.episodes.views
        for view in weights:
            require(view in views, key, view, f"no such view; {nearest(view, views)}")
        require(any(weights.get(view, 1.0) > 0 for view in views), key, weights, "all views weigh 0: nothing would be rewarded")

    @property
    def rollout_frames(self) -> int:
        """Distinct frames of an evaluation's rollout, the first one included."""
        return self.rollout.chunks * (self.world_model.future - 1) + 1

    def for_run(self, run: str) -> "Params":
        """The parameters of one post-training run: `post_trained`, or a variant with its overrides of `post_training` applied."""
        if run == "post_trained":
            return self
        if run not in self.variants:
            raise UserError(f"variants.{run}: no such run; choose from post_trained, {', '.join(self.variants) or '(no variants)'}")
        changes = {} if self.variants[run] is None else self.variants[run]
        mapping = isinstance(changes, dict)
        require(mapping, f"variants.{run}", changes, "expected the keys of post_training that differ, such as steps, groups, candidates")
        merged = merge(dataclasses.asdict(self.post_training), changes)
        changed = dataclasses.replace(self, post_training=build_section(PostTraining, merged, f"variants.{run}"), variants={})
        try:
            changed._check_run()
        except UserError as error:  # of a key that the variant overrides, or of one that what it overrides does not suit
            name, here = str(error).removeprefix("post_training."), f"variants.{run}"
            raise UserError(f"{here}: {name}" if name == str(error) else f"{here}.{name}") from None
        return changed


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file. Raises UserError on anything wrong, naming the key."""
    raw = read_yaml(path)
    try:
        params = build_section(Params, raw, "")
        params.check()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return params


def control_sections(whole: Params) -> tuple[PostTraining, BaseTraining, Control]:
    """The parameters that make the control."""
    return whole.post_training, whole.base_training, whole.control
