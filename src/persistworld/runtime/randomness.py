"""Keyed randomness: every draw uses a new generator, seeded by the numbers that identify the draw, such as (seed, step).

Results therefore do not depend on batch size, worker count or interruption, and a resumed run needs no saved generator state.
"""

import hashlib

import torch


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator seeded by `key`, e.g. generator(seed, "rollout", episode, chunk)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def normal(shape: tuple[int, ...], *key: int | str) -> torch.Tensor:
    """Standard normal float32 draws for `key`."""
    return torch.randn(shape, generator=generator(*key))
