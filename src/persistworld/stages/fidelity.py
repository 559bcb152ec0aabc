"""Compare models beside Table 1: Frechet distances of frames and clips, and how well the arm follows its commands."""

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry, evaluation_episodes, load_manifest
from persistworld.evaluation.fidelity import AGAINST, COMMAND, DECODED, READING, RECORDED, by_chunk, following_numbers, frechet_numbers
from persistworld.evaluation.frechet import FrameFeatures, frechet_scores, load_features
from persistworld.evaluation.generated import generated_frames
from persistworld.evaluation.pose_reader import PoseReader, load_pose_reader, perfect_reading, pose_distances
from persistworld.evaluation.statistics import Resampling
from persistworld.evaluation.truth import open_truth
from persistworld.paper.fidelity import FIGURE, TITLE, fidelity_notes, fidelity_parts, following_figure, write_fidelity
from persistworld.paper.notes import settings_of
from persistworld.paper.pages import write_page
from persistworld.paper.tables import comparisons
from persistworld.runtime.distributed import device
from persistworld.runtime.files import write_json
from persistworld.runtime.progress import track
from persistworld.runtime.workspace import BASE, FIDELITY_PAGE, FIGURES, LATENTS, MANIFEST, METRICS, POSE_READER, TABLES
from persistworld.world_model.autoencoder import load_autoencoder


class Measured:
    """What is measured of films: features, and distances of the read poses from others. Films are added episode by episode."""

    def __init__(self, network: FrameFeatures, reader: PoseReader) -> None:
        self._network, self._reader = network, reader
        self._features: list[Tensor] = []
        self._distances: list[np.ndarray] = []

    def add(self, frames: Tensor, others: Mapping[str, np.ndarray]) -> None:
        """frames: uint8 (T, V, H, W, 3); others: for each of AGAINST the poses (T, OUTPUTS) that the read ones are compared with."""
        self._features.append(self._network(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]))
        read = self._reader(frames)
        self._distances.append(np.stack([pose_distances(read, others[against]) for against in AGAINST]))

    @property
    def features(self) -> Tensor:
        """(E, T, V, D)."""
        return torch.stack(self._features)

    @property
    def following(self) -> np.ndarray:
        """(AGAINST, E, chunks, QUANTITIES)."""
        return by_chunk(np.stack(self._distances, axis=1))


def main(params: Params, args: argparse.Namespace) -> None:
    """Write results/metrics/fidelity.json, results/tables/fidelity.*, results/figures/action_following.* and results/fidelity.html."""
    settings, place, known, views = settings_of(params), device(), params.models, params.episodes.views
    episodes = evaluation_episodes(load_manifest(MANIFEST), params.evaluation, params.rollout_frames)
    clips = len(episodes) * params.rollout.chunks
    require(clips >= 2, "evaluation.episodes", len(episodes), "a distance needs two or more clips: add episodes, or raise rollout.chunks")
    network, reader = load_features(params.metrics.lpips, BASE, place), load_pose_reader(POSE_READER)
    reader.network.to(place)
    autoencoder = load_autoencoder(BASE).to(place)
    truth, poses = open_truth(params, autoencoder), _poses(episodes, params.rollout_frames)

    recorded, decoded, others = Measured(network, reader), Measured(network, reader), {}
    for entry in track(episodes, len(episodes), "recorded frames"):
        known_frames = truth.decoded(entry.index)
        others[entry.index] = {COMMAND: perfect_reading(poses[entry.index]), READING: reader(known_frames)}
        recorded.add(truth.recorded(entry.index), others[entry.index])
        decoded.add(known_frames, others[entry.index])
    measured = {RECORDED: recorded.following, DECODED: decoded.following}
    truths, frechet = {"decoded": decoded.features, "raw": recorded.features}, {}
    for model in known.ordered(params.evaluation.models):
        ceiling = known[model].role == "ceiling"  # these are the decoded frames
        seeds: dict[int, Measured] = {}
        for entry in track(episodes, len(episodes), f"frames of {model}"):
            known_frames = truth.decoded(entry.index)
            films = generated_frames(model, entry.index, known_frames, settings.seeds, autoencoder, len(views))
            for (_, seed), film in films.items():
                seeds.setdefault(seed, Measured(network, reader)).add(film, others[entry.index])
        against = {protocol: features for protocol, features in truths.items() if not (ceiling and protocol == "decoded")}
        frechet[model] = frechet_scores(against, [each.features for each in seeds.values()], views)
        if not ceiling:
            measured[model] = np.mean([each.following for each in seeds.values()], axis=0)
    following = {against: {name: values[place] for name, values in measured.items()} for place, against in enumerate(AGAINST)}
    del following[READING][DECODED]  # zero: this is the reading that the others are compared with

    how = Resampling(settings.bootstrap, settings.confidence, settings.seed)
    numbers = {
        "features": network.name, "protocol": settings.protocol, "episodes": len(episodes), "reader_frames": reader.frames,
        "frechet": frechet_numbers(frechet),
        "action_following": {
            against: following_numbers(found, comparisons(list(found), known), how) for against, found in following.items()
        },
    }  # fmt: skip
    write_json(METRICS / "fidelity.json", numbers)
    parts, notes = fidelity_parts(numbers, settings), fidelity_notes(numbers, settings)
    write_fidelity(numbers, parts, notes, settings.scale, TABLES)
    following_figure(following, settings, FIGURES)
    write_page(
        FIDELITY_PAGE, "parts.html", title="Beside Table 1", table=TITLE, scale=settings.scale, parts=parts, notes=notes,
        figures=[(FIGURES / f"{FIGURE}.png").read_bytes()], partings=(),
    )  # fmt: skip
    print((TABLES / "fidelity.md").read_text())


def _poses(episodes: Sequence[Entry], frames: int) -> dict[int, np.ndarray]:
    """The poses that the rollouts replay, by episode: (T, 7)."""
    store = LatentStore(LATENTS)
    return {entry.index: store.poses(entry.index, slice(0, frames)).numpy() for entry in episodes}
