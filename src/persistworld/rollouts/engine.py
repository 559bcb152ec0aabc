"""Autoregressive rollouts (paper 3.1; Ctrl-World's evaluation), batched, seeded per episode and chunk.

A rollout is kept as its entries: the first latent and then the last latent of every chunk. The published history buffer is a function of
them (`data.windows.buffer_rows`): each chunk adds one entry, and a chunk's first frame is the current frame, so it adds L - 1 frames.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from persistworld.config.world_model import RolloutConfig, SamplerConfig
from persistworld.data.windows import CHUNK_STRIDE, buffer_rows
from persistworld.runtime.randomness import normal
from persistworld.world_model.model import Condition, WorldModel

# (place in the batch, chunk) -> unit-variance noise (L, C, Vh, w)
NoiseFor = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class Starts:
    """Where rollouts start. first: (B, C, Vh, w) scaled latents; poses: (B, T, D) normalised; text: (B, E) or None."""

    first: Tensor
    poses: Tensor
    text: Tensor | None

    def take(self, index: Tensor) -> "Starts":
        return Starts(self.first[index], self.poses[index], None if self.text is None else self.text[index])


def chunk_condition(
    entries: Tensor, starts: Starts, chunks: Sequence[int], index: tuple[int, ...], future: int
) -> Condition:
    """The condition of each rollout's next chunk of `future` frames.

    entries: (B, N, C, Vh, w) with N > max(chunks); chunks: how many chunks each of the B rollouts has behind it.
    """
    history_rows = [buffer_rows(0, done, index) for done in chunks]
    future_rows = [[CHUNK_STRIDE * done + k for k in range(future)] for done in chunks]
    place = torch.arange(len(chunks))[:, None]
    rows = torch.tensor([past + ahead for past, ahead in zip(history_rows, future_rows, strict=True)])
    history = entries[place, torch.tensor(history_rows) // CHUNK_STRIDE]
    current = entries[place[:, 0], torch.tensor(chunks)]
    return Condition(history, current, starts.poses[place, rows], starts.text)


def sample_in_parts(
    model: WorldModel, condition: Condition, noise: Tensor, sampler: SamplerConfig, precision: str, size: int = 0
) -> Tensor:
    """`model.sample` on the model's device, `size` chunks at a time (0: all at once), which bounds the memory of activations."""
    rows = [slice(i, i + (size or len(noise))) for i in range(0, len(noise), size or len(noise))]
    return torch.cat([model.sample(condition.take(r), noise[r].to(model.device), sampler, precision) for r in rows])


def roll(
    model: WorldModel,
    starts: Starts,
    chunks: int,
    noise_for: NoiseFor,
    sampler: SamplerConfig,
    index: tuple[int, ...],
    precision: str,
) -> Iterator[Tensor]:
    """Yield `chunks` chunks (B, L, C, Vh, w), each conditioned on the model's own earlier ones."""
    entries = starts.first[:, None]
    for done in range(chunks):
        condition = chunk_condition(entries, starts, [done] * len(entries), index, model.config.future)
        noise = torch.stack([noise_for(place, done) for place in range(len(entries))])
        chunk = sample_in_parts(model, condition, noise, sampler, precision)
        entries = torch.cat([entries, chunk[:, -1:]], dim=1)
        yield chunk


def rollout(
    model: WorldModel, starts: Starts, episodes: Sequence[int], seed: int, settings: RolloutConfig, rows: int = 0
) -> Tensor:
    """All distinct frames (B, chunks * (L - 1) + 1, C, Vh, w) of one rollout per start.

    The noise depends on (seed, episode, chunk) alone: not on the model, the batch or who else is in it. `rows` pads the batch to a
    fixed size, for a compiled model (`compilation.compile_unet`): another size would be compiled again.
    """
    count = len(episodes)
    if rows > count:  # the last rollout again and again
        places = [*range(count), *[count - 1] * (rows - count)]
        starts, episodes = starts.take(torch.tensor(places)), [episodes[i] for i in places]
    shape = (model.config.future, *starts.first.shape[1:])

    def noise_for(place: int, chunk: int) -> Tensor:
        return normal(shape, seed, "rollout", episodes[place], chunk)

    parts = []
    steps = roll(model, starts, settings.chunks, noise_for, settings.sampler, settings.history_index, settings.precision)
    for chunk in steps:
        parts.append(chunk if not parts else chunk[:, 1:])
    return torch.cat(parts, dim=1)[:count]
