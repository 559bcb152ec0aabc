"""Parameters of the architecture, the sampler and the rollout."""

from dataclasses import dataclass, field
from typing import Literal

from persistworld.config.checks import at_least, positive, require

BUFFER_FILL = 24  # copies of the first latent that a rollout's history buffer starts with (Ctrl-World's evaluation)
NETWORKS_GROUPS = 32  # channel groups in the normalisation layers of diffusers' U-Net and autoencoder


@dataclass(frozen=True)
class AutoencoderConfig:
    """diffusers' AutoencoderKLTemporalDecoder (SVD's class). `patch` folds pixels into channels before encoding (1 = SVD)."""

    patch: int = 1
    latent_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    scaling_factor: float = 0.18215

    @property
    def factor(self) -> int:
        """Pixels per latent cell along each axis."""
        return self.patch * 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class UNetConfig:
    """diffusers' UNetSpatioTemporalConditionModel (SVD's class). The default is SVD's size."""

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    heads: tuple[int, ...] = (5, 10, 20, 20)
    layers: int = 2
    cross_attention_dim: int = 1024
    addition_time_embed_dim: int = 256


@dataclass(frozen=True)
class TextEncoderConfig:
    """transformers' CLIPTextModelWithProjection. The default is ViT-B/32's size."""

    hidden: int = 512
    layers: int = 12
    heads: int = 8
    projection: int = 512
    vocabulary: int = 49_408
    length: int = 77


@dataclass(frozen=True)
class WorldModelConfig:
    """Ctrl-World's architecture.

    Only `base_training` and imports read sizes from here. A checkpoint folder states its own sizes, and the stage `base_checkpoint`
    refuses parameters that contradict them. `use_text: false` drops the checkpoint's text encoder.
    """

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    text_encoder: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    history: int = 6  # H
    future: int = 5  # L
    rotation: Literal["euler", "continuous"] = "euler"  # continuous: the first two columns of the rotation matrix, no jump at +-pi
    use_text: bool = True

    def check_frames(self, height: int, width: int, views: int) -> None:
        """Raise UserError unless the networks accept frames of `height` x `width` pixels with the latents of `views` stacked vertically.

        The autoencoder drops pixels that do not fill a latent cell. Each size that the U-Net halves must be even, or its skips do not fit.
        """
        factor, halvings = self.autoencoder.factor, 2 ** (len(self.unet.channels) - 1)
        for key, size, stacked in (("height", height, views), ("width", width, 1)):
            fitting = max(1, round(size / factor)) * factor
            advice = f"the checkpoint's autoencoder makes cells of {factor} pixels: choose a multiple, e.g. {fitting}"
            require(size % factor == 0, f"episodes.{key}", size, advice)
            cells, step = size // factor * stacked, factor * halvings
            require(
                cells % halvings == 0, f"episodes.{key}", size,
                f"is {cells} latent cells for the U-Net, which halves them {halvings.bit_length() - 1} times: choose a multiple of {step}, "
                f"e.g. {max(1, round(size / step)) * step}",
            )

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
class SamplerConfig:
    """Euler sampler on Karras sigmas. The defaults are SVD's. `guidance` 1 means no guidance (paper, appendix E.1)."""

    steps: int = 50
    sigma_max: float = 700.0
    sigma_min: float = 0.002
    rho: float = 7.0
    guidance: float = 1.0  # ramped from 1 to guidance over the future frames, as in Ctrl-World
    noise_aug: float = 0.02

    def check(self, where: str) -> None:
        at_least(1, self, where, "steps")
        at_least(0, self, where, "noise_aug")
        positive(self, where, "rho")
        require(0 < self.sigma_min < self.sigma_max, f"{where}.sigma_min", self.sigma_min, "must lie between 0 and sigma_max")
        require(self.guidance >= 1, f"{where}.guidance", self.guidance, "1 is no guidance; smaller has no meaning")


@dataclass(frozen=True)
class RolloutConfig:
    """Autoregressive rollouts (paper 3.1; Ctrl-World's evaluation)."""

    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    chunks: int = 14  # 14 * 4 + 1 = 57 distinct frames
    history_index: tuple[int, ...] = (0, 0, -8, -6, -4, -2)  # indices into the history buffer, which grows by one latent per chunk
    precision: Literal["float32", "bfloat16"] = "bfloat16"

    def check(self) -> None:
        self.sampler.check("rollout.sampler")
        at_least(1, self, "rollout", "chunks")
        past = all(-BUFFER_FILL <= i <= 0 for i in self.history_index)
        require(
            past, "rollout.history_index", self.history_index,
            f"0 is the first latent, negative numbers count from the end of a buffer that starts with {BUFFER_FILL} latents: choose from "
            f"-{BUFFER_FILL} to 0",
        )
