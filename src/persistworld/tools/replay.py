"""Replay recorded poses in the world models: a film per episode beside the ground truth, and scores per frame.

    persistworld replay 3 7 11

Each film comes with a CSV file that has one row per model, frame, view, metric and protocol, as in results/scores/.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from persistworld.apps.film import write_film
from persistworld.apps.worlds import base_folder, inhabited, open_models
from persistworld.config.params import Params
from persistworld.data.episodes import EpisodeSource, frame_stride
from persistworld.data.formats import open_episodes
from persistworld.data.frames import resized_frames
from persistworld.evaluation.perceptual import load_perceptual
from persistworld.evaluation.score_table import view_group
from persistworld.evaluation.scores import Scorer, Truth
from persistworld.robot.actions import Reached
from persistworld.robot.control import EXACT
from persistworld.rollouts.inhabited import Embodiment, Inhabited
from persistworld.rollouts.making import actions_of
from persistworld.rollouts.start_frames import EpisodeStarts
from persistworld.runtime.distributed import device
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path
from persistworld.runtime.progress import track
from persistworld.world_model.autoencoder import Autoencoder, decode_views
from persistworld.world_model.views import images_to_float, stack_views

OPTIONS = {
    "episode": {"type": "int", "nargs": "+", "metavar": "EPISODE", "help": "numbers of episodes"},
    "--models": {
        "nargs": "+",
        "metavar": "MODEL",
        "help": "names in checkpoints/, or folders (default: base and post_trained, those that are there)",
    },
    "--episodes": {"metavar": "FOLDER", "help": "data set that they are in (default: the workflow's episodes)"},
    "--chunks": {"type": "int", "metavar": "N", "help": "of frames, at most (default: rollout.chunks)"},
    "--noise": {"type": "int", "default": 0, "metavar": "SEED", "help": "of the sampler's noise (default: %(default)s)"},
    "--output": {"default": "replays", "metavar": "FOLDER", "help": "for films and scores (default: %(default)s)"},
}
TRUTH = "ground truth"


def main(params: Params, args: argparse.Namespace) -> None:
    """args: episode, models, episodes, chunks, noise, output."""
    models, source = open_models(args.models, params), open_episodes(args.episodes or params.episodes.path)
    starts, output = EpisodeStarts(source, params.episodes), Path(args.output)
    robot = Embodiment(actions_of(next(iter(models.values()))[0], params.episodes, "absolute"), None, EXACT)
    perceptual = load_perceptual(params.metrics.lpips, base_folder(params)).to(device())
    scorer = Scorer(perceptual, params.metrics, params.episodes.views, params.evaluation.convention)
    for episode in track(args.episode, len(args.episode), "replay"):
        start, poses = starts.start(episode), _poses(source, episode, params, args.chunks or params.rollout.chunks)
        films = {}
        for name, parts in models.items():
            world = inhabited(parts, params, robot)
            world.reset([start], [(args.noise, "rollout", episode)])
            films[name] = _replayed(world, poses)
        # Any model's autoencoder would do: all share the base's.
        truth = _truth(source, episode, params, next(iter(models.values()))[1], 1 + poses.shape[0] * poses.shape[1])
        scores = scorer.score({(name, args.noise): torch.from_numpy(film) for name, film in films.items()}, truth)
        columns, captions = {TRUTH: truth.raw.numpy(), **films}, _captions(scores, params.evaluation.protocol)
        write_film(output / f"episode-{episode:06d}.mp4", columns, params.episodes.fps, captions, start.instruction)
        with atomic_path(output / f"episode-{episode:06d}.csv") as part:
            scores.to_csv(part, index=False, float_format="%.5f")
        _print(episode, scores, params.evaluation.protocol)


def _poses(source: EpisodeSource, episode: int, params: Params, chunks: int) -> np.ndarray:
    """(chunks, n, P): the recorded poses after the first, in as many whole chunks as the episode has, at most `chunks`."""
    poses = source.episode(episode).pose[:: frame_stride(source.fps, params.episodes.fps)]
    n = params.world_model.future - 1
    chunks = min(chunks, (len(poses) - 1) // n)
    if chunks < 1:
        raise UserError(f"episode {episode}: {len(poses)} frames at {params.episodes.fps:g} a second are fewer than a chunk's {n + 1}")
    return poses[1 : 1 + chunks * n].reshape(chunks, n, -1)


def _replayed(world: Inhabited, poses: np.ndarray) -> np.ndarray:
    """(T, V, H, W, 3) uint8: the first frame and all generated ones."""
    frames = [world.frames.copy()]
    frames += [world.go([Reached(part, part, None)])[0] for part in poses]
    return np.concatenate(frames)


@torch.no_grad()
def _truth(source: EpisodeSource, episode: int, params: Params, autoencoder: Autoencoder, count: int) -> Truth:
    """The recorded frames, raw and reconstructed by the autoencoder."""
    raw = torch.stack([resized_frames(source, episode, params.episodes, view)[:count] for view in params.episodes.views], dim=1)
    latents = [stack_views(autoencoder.encode(images_to_float(views))) for views in raw]
    return Truth(episode, raw, decode_views(autoencoder, torch.stack(latents), raw.shape[1]), None)


def _captions(scores: pd.DataFrame, protocol: str) -> dict[str, list[str]]:
    """Model -> one line per frame: PSNR and SSIM of each group of views (external, wrist). Under the truth: what the numbers are."""
    shown = scores[(scores["protocol"] == protocol) & (scores["region"] == "full")].copy()
    shown["group"] = shown["view"].map(view_group)
    means = shown.pivot_table(index=["model", "frame"], columns=["group", "metric"], values="value")
    groups = list(dict.fromkeys(shown["group"]))
    lines = {TRUTH: [f"frame {frame}; right: PSNR and SSIM, {protocol}" for frame in sorted(shown["frame"].unique())]}
    for (model, _), row in means.iterrows():
        parts = [f"{group} {row[group, 'psnr']:.1f} dB {row[group, 'ssim']:.3f}" for group in groups]
        lines.setdefault(model, []).append("  ".join(parts))
    return lines


def _print(episode: int, scores: pd.DataFrame, protocol: str) -> None:
    """Print each model's means without frame 0, as in the tables."""
    shown = scores[(scores["protocol"] == protocol) & (scores["region"] == "full") & (scores["frame"] > 0)]
    means = shown.groupby(["model", "metric"], sort=False)["value"].mean().unstack()
    for model, row in means.iterrows():
        print(f"episode {episode}, {model}: PSNR {row['psnr']:.2f} dB, SSIM {row['ssim']:.4f}, LPIPS {row['lpips']:.4f} ({protocol})")
