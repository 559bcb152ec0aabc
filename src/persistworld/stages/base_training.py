"""Train a base checkpoint from random weights or from another checkpoint (hours).

The checkpoint holds the autoencoder, the world model and the perceptual network. Each set of parameters has its own run folder. A part is
skipped if its output is already there, and the world model continues from its last saved step. With several processes, the first one
trains the small networks, each process encodes its shards of the latents, and all of them train the world model.
"""

import argparse
import dataclasses
import hashlib
import shutil
from pathlib import Path

import torch

from persistworld.checkpoints.folders import load_base_model, save_world_model, write_manifest
from persistworld.checkpoints.layout import WEIGHTS
from persistworld.config.params import Params
from persistworld.config.reading import digest
from persistworld.config.training import BaseTrainingConfig
from persistworld.data.elsewhere import identity
from persistworld.data.encoding import encode_episodes, join_shard
from persistworld.data.episodes import MANIPULATED_OBJECT, ROBOT, BadEpisode, EpisodeSource
from persistworld.data.formats import open_episodes
from persistworld.data.frames import resized_frames
from persistworld.data.latents import LatentStore, read_shard_indices
from persistworld.data.manifest import Manifest, build_manifest, check_bad_share, wanted_indices
from persistworld.data.windows import WindowSource
from persistworld.evaluation.perceptual import TABLETOP_FILE
from persistworld.evaluation.recorded_masks import SimulatorMasks
from persistworld.runtime.distributed import device, own_part, processes
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path, sha256, write_json
from persistworld.runtime.holding import hold
from persistworld.runtime.provenance import code_digest
from persistworld.runtime.tensor_files import write_tensors
from persistworld.runtime.workspace import RUNS
from persistworld.training.autoencoder import train_autoencoder
from persistworld.training.perceptual import train_segmentation_backbone
from persistworld.training.run import state_folder, tied_by
from persistworld.training.teacher_forcing import train_world_model
from persistworld.world_model import autoencoder as ae
from persistworld.world_model.action_encoder import ActionEncoder
from persistworld.world_model.model import WorldModel
from persistworld.world_model.text import InstructionEncoder, train_tokenizer

OPTIONS = {"--output": {"default": "assets/tabletop_base", "metavar": "FOLDER", "help": "(default: %(default)s)"}}


def main(params: Params, args: argparse.Namespace) -> None:
    output, source = Path(args.output), open_episodes(params.episodes.path, params.episodes.keep_ranges)
    run_folder = RUNS / "base_training" / run_name(params, identity(source))
    with hold(run_folder / "lock", str(run_folder)):  # runs with different --output can share a run folder
        _make(params, source, output, run_folder)


def _make(params: Params, source: EpisodeSource, output: Path, run_folder: Path) -> None:
    training = wanted_indices(params.episodes, source)
    with processes().main_process_first():  # the others then find its outputs
        autoencoder = make_autoencoder(params, source, training, run_folder)
        _perceptual(params, source, training, run_folder)
    manifest, store = _latents(params, source, training, autoencoder, run_folder / "latents")
    start_from = params.base_training.start_from
    continued = start_from and params.base_training.keep == "all"
    model = train_world_model(
        continued_model(params, manifest, Path(start_from), autoencoder) if continued else _new_model(params, autoencoder, manifest),
        WindowSource(store, manifest.long_enough("train", params.world_model.future), params.rollout.history_index),
        params.base_training,
        params.seed,
        state_folder(run_folder, params.base_training.steps, _tied(params.base_training)),
        params.compute.base_training,
    )
    if not processes().is_main_process:
        return
    perceptual = (run_folder if params.base_training.perceptual_steps else Path(start_from or run_folder)) / TABLETOP_FILE
    with atomic_path(output) as folder:
        folder.mkdir()
        ae.save_autoencoder(autoencoder, folder, half=True)
        save_world_model(model, folder, half=True)
        if perceptual.exists():
            shutil.copyfile(perceptual, folder / TABLETOP_FILE)
        write_manifest(folder, [params.base_training], params.seed, {"start_from": Path(start_from) / WEIGHTS} if start_from else {})
    print(f"base checkpoint: {output}")


def run_name(params: Params, data: str) -> str:
    """The run folder's name: a hash of the parameters, the code, the data set's fingerprint and the networks of `start_from`, if set.

    It does not depend on base_training.steps, so that a training goes on if the schedule allows it.
    """
    sections = (dataclasses.replace(params.base_training, steps=1), params.episodes, params.latents, params.world_model)
    start_from = params.base_training.start_from
    networks = [Path(start_from) / name for name in (WEIGHTS, ae.WEIGHTS, TABLETOP_FILE)] if start_from else []
    given = [sha256(file) for file in networks if file.exists()]
    history = repr(params.rollout.history_index)
    made_from = [*map(digest, sections), history, str(params.seed), data, code_digest("stages.base_training"), *given]
    return hashlib.sha256("-".join(made_from).encode()).hexdigest()[:16]


def _tied(settings: BaseTrainingConfig) -> str | None:
    decay_from = settings.optimizer.decay_from
    return tied_by({f"base_training.optimizer.decay_from = {decay_from:g}": decay_from < 1})


def training_frames(params: Params, source: EpisodeSource, indices: list[int], folder: Path) -> tuple[torch.Tensor, list[int]]:
    """All frames (N, H, W, 3) uint8, ordered by episode and then by view, and the indices of the episodes used.

    Unusable episodes are left out and listed with the reason in frames.json, as in a shard's index. Raises UserError if there are too many.
    """
    found, bad = {}, {}
    for index in indices:
        try:
            found[index] = [resized_frames(source, index, params.episodes, view) for view in params.episodes.views]
        except BadEpisode as error:
            bad[index] = error.reason
    check_bad_share(len(found), bad, params.episodes)
    write_json(folder / "frames.json", {"frames": {i: len(views[0]) for i, views in found.items()}, "bad": bad})
    return torch.cat([view for views in found.values() for view in views]), list(found)


def make_autoencoder(params: Params, source: EpisodeSource, training: list[int], folder: Path) -> ae.Autoencoder:
    """The autoencoder: loaded from `folder`, or trained now, or that of start_from."""
    settings = params.base_training
    if settings.autoencoder_steps == 0:
        if not settings.start_from:
            raise UserError("base_training.autoencoder_steps = 0: there is none yet; give it steps, or name a checkpoint in start_from")
        return ae.load_autoencoder(settings.start_from).to(device())
    if not (folder / ae.CONFIG).exists():
        frames, _ = training_frames(params, source, training[: settings.autoencoder_episodes], folder)
        trained = train_autoencoder(frames, params.world_model.autoencoder, settings, params.seed)
        ae.save_autoencoder(trained, folder)
    return ae.load_autoencoder(folder).to(device())


def _latents(
    params: Params, source: EpisodeSource, training: list[int], autoencoder: ae.Autoencoder, folder: Path
) -> tuple[Manifest, LatentStore]:
    shards = params.latents.shards
    for number in range(shards)[own_part(shards)]:
        shard = folder / f"shard-{number}.safetensors"
        if not shard.with_suffix(".json").exists():
            indices, parts, settings = training[number::shards], folder / str(number), (params.episodes, params.latents)
            bad = encode_episodes(source, indices, *settings, params.compute.encode_batch, autoencoder, params.seed, parts, shard.stem)
            join_shard(indices, bad, parts, shard)
            shutil.rmtree(parts, ignore_errors=True)  # missing if no episode was usable
    processes().wait_for_everyone()
    store, (encoded, bad) = LatentStore(folder), read_shard_indices(folder, shards)
    return build_manifest(source, store, encoded, bad, params.episodes, params.world_model.rotation, params.world_model.future), store


def _perceptual(params: Params, source: EpisodeSource, training: list[int], folder: Path) -> None:
    if (folder / TABLETOP_FILE).exists() or params.base_training.perceptual_steps == 0:
        return
    frames, chosen = training_frames(params, source, training[: params.base_training.autoencoder_episodes], folder)
    labels = training_labels(params, source, chosen).numpy()
    backbone = train_segmentation_backbone(frames.numpy(), labels, params.base_training.perceptual_steps, params.seed)
    write_tensors(backbone.state_dict(), folder / TABLETOP_FILE)


def training_labels(params: Params, source: EpisodeSource, indices: list[int]) -> torch.Tensor:
    """The labels (N, H, W) uint8 of `training_frames`. Raises UserError if an episode has no labels."""
    masks, labels = SimulatorMasks(source, params.episodes), []
    for index in indices:
        for view in params.episodes.views:
            try:
                found = masks.masks(index, view)
            except BadEpisode as error:
                raise UserError(f"episode {index} {error.reason}; or set base_training.perceptual_steps to 0") from None
            labels.append(torch.where(found.manipulated, MANIPULATED_OBJECT, ROBOT * found.robot.to(torch.uint8)))
    return torch.cat(labels)


def continued_model(params: Params, manifest: Manifest, folder: Path, autoencoder: ae.Autoencoder) -> WorldModel:
    """The model in `folder` for further training, with its sizes and tokenizer, and this run's autoencoder and views.

    If the poses have another width or rotation format, the model gets a new action encoder and the pose statistics of this run's episodes.
    Otherwise it keeps the checkpoint's.
    """
    model = load_base_model(folder)
    for name in ("history", "future"):
        given, wanted = getattr(model.config, name), getattr(params.world_model, name)
        if given != wanted:
            raise UserError(f"world_model.{name} = {wanted}: the checkpoint {folder} was made for {given}")
    given, wanted = model.config.autoencoder.latent_channels, autoencoder.sizes.latent_channels
    if given != wanted:
        raise UserError(f"world_model.autoencoder.latent_channels = {wanted}: the checkpoint {folder} was made for {given}")
    model.config = dataclasses.replace(model.config, autoencoder=autoencoder.sizes)
    model.scaling_factor = autoencoder.sizes.scaling_factor
    model.views = params.episodes.views
    known, found = model.statistics, manifest.statistics
    if (known.rotation, len(known.low)) != (found.rotation, len(found.low)):
        torch.manual_seed(params.seed)
        model.action_encoder = ActionEncoder(len(found.low), model.config.unet.cross_attention_dim)
        model.config, model.statistics = dataclasses.replace(model.config, rotation=found.rotation), found
    return model.requires_grad_(True).to(device())


def _new_model(params: Params, autoencoder: ae.Autoencoder, manifest: Manifest) -> WorldModel:
    torch.manual_seed(params.seed)
    config = dataclasses.replace(params.world_model, autoencoder=autoencoder.sizes)
    text_encoder = None
    if config.use_text:
        sentences = sorted({e.instruction for e in manifest.episodes})
        text_encoder = InstructionEncoder(config.text_encoder, train_tokenizer(sentences, config.text_encoder))
    return WorldModel(config, params.episodes.views, manifest.statistics, text_encoder).to(device())
