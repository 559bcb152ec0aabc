"""Frames per second of every step that processes frames."""

import torch

from benchmarks.materials import Materials
from benchmarks.table import Row, seconds
from persistworld.evaluation.scores import Scorer, Truth
from persistworld.runtime.randomness import normal
from persistworld.simulator.episode import simulate_episode
from persistworld.world_model.model import autocast


def rows(materials: Materials) -> list[Row]:
    """Time each step. A frame is one time step with all its views."""
    params, views = materials.params, len(materials.params.episodes.views)
    parts = [_simulation(materials)] if params.episodes.source == "simulate" else []

    images = materials.images(views * 16)
    with torch.no_grad():
        time = seconds(lambda: materials.autoencoder.encode(images))
        parts.append(Row("encoding", 16 / time, "frames/s", "float32, as the stage latents"))
        latents = materials.autoencoder.encode(images)
        time = seconds(lambda: materials.autoencoder.decode(latents))
        parts.append(Row("decoding", 16 / time, "frames/s", "float32, as the stage scores"))
        with autocast(materials.device, params.post_training.precision):
            time = seconds(lambda: materials.autoencoder.decode(latents))
        parts.append(Row("decoding for rewards", 16 / time, "frames/s", params.post_training.precision))
    return [*parts, *_sampling(materials), _scoring(materials)]


def _simulation(materials: Materials) -> Row:
    size, frames = materials.params.episodes, 21
    time = seconds(
        lambda: simulate_episode(0, 0, frames=frames, height=size.height, width=size.width, fps=size.fps), repeats=1
    )
    return Row("simulation", frames / time, "frames/s", "one core, physics and three cameras with masks")


def _sampling(materials: Materials) -> list[Row]:
    settings, model = materials.params.rollout, materials.model
    batch, future = materials.params.compute.rollout.batch, model.config.future
    condition, noise = materials.condition(batch), materials.latents(batch, future)
    time = seconds(lambda: model.sample(condition, noise, settings.sampler, settings.precision))
    note = f"batch {batch}, {settings.sampler.steps} steps, {settings.precision}, {materials.weights} weights"
    return [
        Row("sampling", batch * (future - 1) / time, "frames/s", note),
        Row("sampling, a chunk", time / batch, "s", note),
    ]


def _scoring(materials: Materials) -> Row:
    settings, frames = materials.params.episodes, 16
    shape = (frames, len(settings.views), settings.height, settings.width)
    raw = (normal((*shape, 3), "truth") * 40 + 128).clamp(0, 255)
    film = (raw + 5 * normal((*shape, 3), "film")).clamp(0, 255).to(torch.uint8)
    masks = torch.zeros(shape, dtype=torch.uint8)
    masks[..., : settings.height // 4, : settings.width // 4] = 1
    masks[..., settings.height // 2 :, settings.width // 2 :] = 2
    truth = Truth(0, raw.to(torch.uint8), film, masks)
    scorer = Scorer(materials.perceptual, materials.params.metrics, settings.views)
    time = seconds(lambda: scorer.score({("base", 0): film}, truth))
    return Row("scoring", frames / time, "frames/s", "full, robot, object; both protocols; all metrics")
