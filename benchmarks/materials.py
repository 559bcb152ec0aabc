"""The inputs of the timed benchmarks: a preset's models, and data of its shapes.

Weights are the base checkpoint's if `base_checkpoint` is an existing folder, else random ones with `world_model`'s sizes. No timing depends
on them. Images and latents are noise. Rewards and scores compare an image with a noisy copy of it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from persistworld.checkpoints.folders import load_base_model
from persistworld.config.params import Params
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.evaluation.perceptual import TABLETOP_FILE, PerceptualDistance, load_perceptual
from persistworld.evaluation.segmentation_backbone import SegmentationBackbone
from persistworld.runtime.errors import UserError
from persistworld.world_model.autoencoder import Autoencoder, load_autoencoder
from persistworld.world_model.model import Condition, WorldModel
from persistworld.world_model.poses import PoseStatistics, pose_size
from persistworld.world_model.text import InstructionEncoder, train_tokenizer

CPU_LIMIT = 200e6  # parameters; on a CPU, the full-size model takes minutes per chunk and most of the memory
EPISODES = 8
SENTENCE = "put the cube into the bowl"


@dataclass(frozen=True)
class Materials:
    """A preset's parameters and models, and their device."""

    params: Params
    device: torch.device
    model: WorldModel
    autoencoder: Autoencoder
    perceptual: PerceptualDistance
    weights: str  # "shipped" or "random", for the notes

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, V * h, w) of one stacked frame."""
        settings, factor = self.params.episodes, self.autoencoder.factor
        rows = len(settings.views) * (settings.height // factor)
        return self.autoencoder.sizes.latent_channels, rows, settings.width // factor

    def images(self, count: int) -> Tensor:
        """(count, 3, H, W) in [-1, 1]."""
        size = self.params.episodes
        return torch.rand(count, 3, size.height, size.width, device=self.device) * 2 - 1

    def latents(self, *count: int) -> Tensor:
        """(*count, C, V * h, w) with unit variance, like scaled latents."""
        return torch.randn(*count, *self.latent_shape, device=self.device)

    def condition(self, batch: int) -> Condition:
        """The condition for one chunk of `batch` rollouts."""
        config, model = self.model.config, self.model
        poses = torch.rand(batch, config.history + config.future, len(model.statistics.low), device=self.device) * 2 - 1
        text = model.encode_instructions([SENTENCE] * batch)
        return Condition(self.latents(batch, config.history), self.latents(batch), poses, text)


def load_materials(params: Params) -> Materials:
    """Build all materials. Raises UserError if the preset is too large for the machine."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(params.seed)
    shipped = Path(params.base_checkpoint.location)
    if params.base_checkpoint.source == "file" and shipped.is_dir():
        model, autoencoder, weights = load_base_model(shipped), load_autoencoder(shipped), "shipped"
    else:
        with torch.device("meta"):
            size = sum(p.numel() for p in random_model(params).parameters())
        if size > CPU_LIMIT and device.type == "cpu":
            raise UserError(f"preset {params.preset}: {size / 1e6:,.0f} M parameters need a GPU; on a CPU run: python -m benchmarks cost")
        model, autoencoder, weights = random_model(params), Autoencoder(params.world_model.autoencoder), "random"
    perceptual = load_perceptual("tabletop", shipped) if (shipped / TABLETOP_FILE).is_file() else None
    perceptual = perceptual or PerceptualDistance(SegmentationBackbone(), name="random segmentation network")
    for part in (model, autoencoder, perceptual):
        part.to(device).eval().requires_grad_(False)
    return Materials(params, device, model, autoencoder, perceptual, weights)


def random_model(params: Params) -> WorldModel:
    """A world model with the sizes of `params.world_model` and random weights."""
    config, text = params.world_model, None
    width = pose_size(config.rotation)
    if config.use_text:
        text = InstructionEncoder(config.text_encoder, train_tokenizer([SENTENCE], config.text_encoder))
    return WorldModel(config, params.episodes.views, PoseStatistics(config.rotation, (-1.0,) * width, (1.0,) * width), text)


def random_episodes(materials: Materials, folder: Path) -> tuple[LatentStore, list[Entry]]:
    """A latent store in `folder` and its entries. Episodes are just long enough for the longest prefix and branch."""
    settings = materials.params.post_training
    frames = (settings.prefix[1] + settings.branch) * (materials.model.config.future - 1) + 1
    tensors = {}
    for index in range(EPISODES):
        tensors |= {str(index): materials.latents(frames).cpu(), f"{index}.poses": torch.rand(frames, 7)}
    save_file(tensors, folder / "shard-0.safetensors")
    return LatentStore(folder), [Entry(i, "train", SENTENCE, True, frames) for i in range(EPISODES)]
