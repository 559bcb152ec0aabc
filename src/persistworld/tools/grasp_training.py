"""Train the grasp reader and test it. It tells from the frames whether closing fingers meet an object.

Needs the episodes of `episodes.path`, with commanded and reached gripper values, and the base checkpoint's autoencoder. Training also uses
the autoencoder's reconstruction of half of the episodes. The last fifth of the episodes is held out for testing.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from persistworld.apps.worlds import base_folder
from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.data.formats import open_episodes
from persistworld.data.frames import resized_frames
from persistworld.data.manifest import wanted_indices
from persistworld.policies.grasp_reader import save_grasp_reader
from persistworld.runtime.files import atomic_path
from persistworld.runtime.progress import track
from persistworld.training.grasp_reader import GraspExamples, examples_of, train_grasp_reader
from persistworld.world_model.autoencoder import Autoencoder, decode_views, load_autoencoder
from persistworld.world_model.views import images_to_float, stack_views

OPTIONS = {
    "--steps": {"type": "int", "default": 1500, "metavar": "N", "help": "of 64 frames (default: %(default)s)"},
    "--output": {"required": True, "metavar": "FOLDER"},
}


def main(params: Params, args: argparse.Namespace) -> None:
    """args: steps, output."""
    source, autoencoder = open_episodes(params.episodes.path), load_autoencoder(base_folder(params))
    indices, count = wanted_indices(params.episodes, source), params.world_model.future - 1
    require(len(indices) >= 5, "episodes.count", len(indices), "at least five are needed: one in five is held out")
    held = indices[-(len(indices) // 5) :]
    parts: dict[str, list[GraspExamples]] = {"training": [], "recorded": [], "decoded": []}
    for number, index in enumerate(track(indices, len(indices), "frames")):
        episode = source.episode(index)
        frames = torch.stack([resized_frames(source, index, params.episodes, view) for view in params.episodes.views], dim=1).numpy()
        if index in held:
            parts["recorded"].append(examples_of(episode, frames, count))
            parts["decoded"].append(examples_of(episode, _decoded(autoencoder, frames), count))
        else:
            shown = (frames, _decoded(autoencoder, frames)) if number % 2 else (frames,)
            parts["training"] += [examples_of(episode, each, count) for each in shown]
    examples = {name: GraspExamples.join(each) for name, each in parts.items()}
    reader = train_grasp_reader(examples["training"], args.steps, params.seed)
    with atomic_path(Path(args.output)) as folder:
        save_grasp_reader(reader, folder)
    print(f"{args.output}: from {len(examples['training'].caught)} frames of {len(indices) - len(held)} episodes")
    for name in ("recorded", "decoded"):
        each = examples[name]
        with torch.no_grad():
            said = reader.network(images_to_float(torch.from_numpy(each.frames)), torch.from_numpy(each.motion)).numpy() > 0
        caught, nothing = said[each.caught].mean(), (~said[~each.caught]).mean()
        counts = f"{caught:.3f} of {each.caught.sum()} that caught something, {nothing:.3f} of {(~each.caught).sum()} that did not"
        print(f"{name} frames of {len(held)} other episodes: right on {counts}")


@torch.no_grad()
def _decoded(autoencoder: Autoencoder, frames: np.ndarray) -> np.ndarray:
    """The frames encoded and decoded by the autoencoder: the best quality that a world model can reach."""
    images = images_to_float(torch.from_numpy(frames))
    latents = stack_views(autoencoder.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2]))
    return decode_views(autoencoder, latents, frames.shape[1]).numpy()
