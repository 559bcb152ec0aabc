"""Chooses the frames of a training example: H history frames, then L future frames. The first future frame is the current frame
(Ctrl-World)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from persistworld.config.training import BaseTrainingConfig
from persistworld.config.world_model import BUFFER_FILL
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry

CHUNK_STRIDE = 4  # new frames per chunk (L - 1); also the spacing of history entries, in units of the frame skip


@dataclass(frozen=True)
class WindowSource:
    """The source of training windows: the episodes, their latents, and the history index of rollouts, which the rule `buffer` uses."""

    store: LatentStore
    episodes: Sequence[Entry]
    history_index: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """A batch of windows. Scaled latents: history (B, H, C, Vh, w), future (B, L, C, Vh, w); normalised poses (B, H + L, D)."""

    history: Tensor
    future: Tensor
    poses: Tensor
    episodes: tuple[int, ...]

    def take(self, rows: slice) -> "Batch":
        return Batch(self.history[rows], self.future[rows], self.poses[rows], self.episodes[rows])


def buffer_rows(first: int, chunk: int, index: tuple[int, ...]) -> list[int]:
    """The history frames of a rollout that began at frame `first` and has generated `chunk` chunks (`rollouts.rollout`).

    The buffer holds BUFFER_FILL copies of the first frame, then the last frame of every chunk. `index` selects from this buffer.
    """
    buffer = [first] * BUFFER_FILL + [first + CHUNK_STRIDE * (c + 1) for c in range(chunk)]
    return [buffer[i] for i in index]


def skip_rows(current: int, history: int, spacing: int) -> list[int]:
    """`history` frames before `current`, `spacing` apart, oldest first. Negative frame numbers are replaced by frame 0."""
    return [max(0, current - spacing * k) for k in range(history, 0, -1)]


def draw_window(
    frames: int, training: BaseTrainingConfig, history: int, future: int, index: tuple[int, ...], rng: torch.Generator
) -> tuple[list[int], list[int]]:
    """Draw a random window from an episode with `frames` frames. Returns the H history rows and the L future rows."""

    def below(n: int) -> int:
        return int(torch.randint(n, (1,), generator=rng))

    skip = training.frame_skips[below(len(training.frame_skips))]
    skip = min(skip, (frames - 1) // (future - 1))
    collapse = bool(torch.rand(1, generator=rng) < training.history_collapse)
    last_start = frames - 1 - skip * (future - 1)
    if training.history_rule == "buffer":
        chunk = below(last_start // CHUNK_STRIDE + 1)
        first = below(last_start - CHUNK_STRIDE * chunk + 1)
        current, rows = first + CHUNK_STRIDE * chunk, buffer_rows(first, chunk, index)
    else:
        current = below(last_start + 1)
        rows = skip_rows(current, history, CHUNK_STRIDE * skip)
    if collapse:
        rows = [current] * history
    return rows, [current + skip * k for k in range(future)]


def read_batch(
    store: LatentStore, windows: list[tuple[int, list[int], list[int]]], normalise
) -> Batch:
    """Read the windows, given as (episode, history rows, future rows). `normalise` maps (T, 7) poses to (T, D) in [-1, 1]."""
    history = torch.stack([store.latents(e, past) for e, past, _ in windows])
    future = torch.stack([store.latents(e, ahead) for e, _, ahead in windows])
    poses = torch.stack(
        [torch.from_numpy(normalise(store.poses(e, past + ahead).numpy())) for e, past, ahead in windows]
    )
    return Batch(history, future, poses, tuple(e for e, _, _ in windows))
