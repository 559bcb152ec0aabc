"""Stage base_training: the base checkpoint from nothing (autoencoder, latents, world model, perceptual network).

Each part is skipped when its output is already in the run folder, and the world model takes up at its last saved step.
"""

import argparse
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import torch

from persistworld.base_training.autoencoder import train_autoencoder
from persistworld.base_training.perceptual import train_segmentation_backbone
from persistworld.base_training.trainer import train_world_model
from persistworld.data.episodes import EpisodeSource, open_episodes
from persistworld.data.latents import LatentStore, encode_shard, read_shard_index, resized_frames
from persistworld.data.manifest import Manifest, build_manifest, wanted_indices
from persistworld.distributed import device
from persistworld.metrics.perceptual import TABLETOP_FILE
from persistworld.params import Params
from persistworld.world_model import autoencoder as ae
from persistworld.world_model.checkpoint import save_world_model, write_manifest
from persistworld.world_model.model import WorldModel
from persistworld.world_model.tensor_files import write_tensors
from persistworld.world_model.text import InstructionEncoder, train_tokenizer


def main(params: Params, args: argparse.Namespace) -> None:
    output, run_folder = Path(args.output), Path("runs/base_training")
    run_folder.mkdir(parents=True, exist_ok=True)
    source = open_episodes(params.episodes.path)
    training = wanted_indices(params.episodes, source)
    autoencoder = _autoencoder(params, source, training, run_folder)
    manifest, store = _latents(params, source, training, autoencoder, run_folder)
    _perceptual(params, source, training, run_folder)
    model = train_world_model(
        _new_model(params, autoencoder, manifest),
        store,
        manifest.long_enough("train", params.world_model.future),
        params.base_training,
        params.rollout.history_index,
        params.seed,
        run_folder,
    )
    output.mkdir(parents=True, exist_ok=True)
    ae.save_autoencoder(autoencoder, output, half=True)
    save_world_model(model, output, half=True)
    if params.base_training.perceptual_steps:
        shutil.copyfile(run_folder / TABLETOP_FILE, output / TABLETOP_FILE)
    write_manifest(output, params.base_training, params.seed, {})
    print(f"base checkpoint: {output}")


def _frames(params: Params, source: EpisodeSource, indices: list[int]) -> torch.Tensor:
    views = params.episodes.views
    return torch.cat([resized_frames(source, i, params.episodes, v) for i in indices for v in views])


def _autoencoder(params: Params, source: EpisodeSource, training: list[int], folder: Path) -> ae.Autoencoder:
    if not (folder / ae.CONFIG).exists():
        frames = _frames(params, source, training[: params.base_training.autoencoder_episodes])
        trained = train_autoencoder(frames, params.world_model.autoencoder, params.base_training, params.seed)
        ae.save_autoencoder(trained, folder)
    return ae.load_autoencoder(folder).to(device())


def _latents(
    params: Params, source: EpisodeSource, training: list[int], autoencoder: ae.Autoencoder, folder: Path
) -> tuple[Manifest, LatentStore]:
    shard = folder / "latents" / "shard-0.safetensors"
    if not shard.with_suffix(".json").exists():
        encode_shard(source, training, params.episodes, params.latents, autoencoder, params.seed, shard)
    store = LatentStore(shard.parent)
    frames, bad = read_shard_index(shard.with_suffix(".json"))
    return build_manifest(source, store, frames, bad, params.episodes, params.world_model.rotation), store


def _perceptual(params: Params, source: EpisodeSource, training: list[int], folder: Path) -> None:
    if (folder / TABLETOP_FILE).exists() or params.base_training.perceptual_steps == 0:
        return
    chosen = training[: params.base_training.autoencoder_episodes]
    frames = _frames(params, source, chosen).numpy()
    labels = np.concatenate([source.masks(i).transpose(1, 0, 2, 3) for i in chosen])  # view first, as `_frames`
    labels = labels.reshape(-1, *labels.shape[-2:])
    backbone = train_segmentation_backbone(frames, labels, params.base_training.perceptual_steps, params.seed)
    write_tensors(backbone.state_dict(), folder / TABLETOP_FILE)


def _new_model(params: Params, autoencoder: ae.Autoencoder, manifest: Manifest) -> WorldModel:
    torch.manual_seed(params.seed)
    config = dataclasses.replace(params.world_model, autoencoder=autoencoder.sizes)
    text_encoder = None
    if config.use_text:
        sentences = sorted({e.instruction for e in manifest.episodes})
        text_encoder = InstructionEncoder(config.text_encoder, train_tokenizer(sentences, config.text_encoder))
    return WorldModel(config, params.episodes.views, manifest.statistics, text_encoder).to(device())
