"""A batch of autoregressive rollouts (paper 3.1; Ctrl-World's evaluation): history buffer, index rule, noise keys.

Evaluation rollouts, post-training's prefixes, candidates and streams, and everything else that acts in the model are a few lines on it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from persistworld.config.world_model import RolloutConfig
from persistworld.runtime.randomness import normal
from persistworld.world_model.model import Condition, WorldModel

Key = tuple[int | str, ...]  # names the noise of one rollout, such as (seed, "rollout", episode)
Index = Tensor | slice | Sequence[int]


@dataclass(frozen=True)
class Starts:
    """Where B rollouts start.

    first: (B, C, Vh, w) scaled latents; pose: (B, P) at that frame, in m, rad, 0..1, on the CPU; text: (B, E) or None.
    """

    first: Tensor
    pose: Tensor
    text: Tensor | None

    def take(self, index: Index) -> "Starts":
        return Starts(self.first[index], self.pose[index], None if self.text is None else self.text[index])

    @staticmethod
    def join(parts: Sequence["Starts"]) -> "Starts":
        """All parts as one batch, in their order."""
        text = None if parts[0].text is None else torch.cat([part.text for part in parts])
        return Starts(torch.cat([part.first for part in parts]), torch.cat([part.pose for part in parts]), text)


class Rollout:
    """B rollouts that advance a chunk at a time; each may have any number of chunks behind it.

    A chunk has L frames. The first of them is the current frame again, so a chunk adds L - 1 frames. The history buffer gains one latent
    per chunk, the last, and `settings.history_index` picks the history of the next chunk from the buffer. In Ctrl-World the buffer starts
    as copies of the first latent and grows. Here only what the index can reach is kept: the first latent (index 0) and the newest ones.
    Memory therefore does not grow with the length of a rollout.

    The noise of a rollout's next chunk is a function of its key and the number of chunks drawn under that key. It does not depend on the
    model, the batch or the other rollouts in it.
    """

    def __init__(self, model: WorldModel, settings: RolloutConfig, batch: int = 0) -> None:
        """An empty batch: `reset` or `load` fills it.

        Of `settings`, the sampler, the history index and the precision matter here. batch: chunks that are sampled at once, which bounds
        the memory of activations; 0 is all of them.
        """
        self.model, self.settings, self.batch = model, settings, batch
        self.keys: list[Key] = []
        self.drawn: list[int] = []  # chunks drawn under each key
        self.text: Tensor | None = None  # (B, E)
        # latents: (B, S, C, Vh, w), poses: (B, S, D) normalised. Slot 0 is the first frame, the last slot is the current one.

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def slots(self) -> int:
        """S: the first frame, and as many of the newest as the history index reaches back."""
        return 1 + max(1, -min(self.settings.history_index))

    @property
    def current(self) -> Tensor:
        """(B, C, Vh, w): the newest frame of each rollout."""
        return self.latents[:, -1]

    def reset(self, starts: Starts, keys: Sequence[Key], rows: Sequence[int] | None = None) -> None:
        """Start a new batch of one rollout per key; or, with `rows`, start only these rollouts of the batch again."""
        first = starts.first[:, None].repeat(1, self.slots, 1, 1, 1)
        poses = self.model.normalise_poses(starts.pose)[:, None].repeat(1, self.slots, 1)
        if rows is None:
            self.latents, self.poses, self.text = first, poses, None if starts.text is None else starts.text.clone()
            self.keys, self.drawn = list(keys), [0] * len(keys)
            return
        self.latents[rows], self.poses[rows] = first, poses
        if self.text is not None:
            self.text[rows] = starts.text
        for row, key in zip(rows, keys, strict=True):
            self.keys[row], self.drawn[row] = key, 0

    def step(self, poses: ArrayLike, rows: Sequence[int] | None = None) -> Tensor:
        """Sample the next chunk (B, L, C, Vh, w) of every rollout, or of `rows` alone. Its first frame is the current frame again.

        poses: (B, L - 1, P) of the next L - 1 frames, in m, rad, 0..1. Raises UserError where P is not the model's, ValueError for another
        shape.
        """
        return self.advance(self.condition(poses, rows), rows)

    def condition(self, poses: ArrayLike, rows: Sequence[int] | None = None) -> Condition:
        """What the next chunk is conditioned on, given `poses` as in `step`. Later steps do not change it."""
        places, ahead = self._places(rows), self.model.normalise_poses(poses)
        if ahead.shape[:2] != (len(places), self.model.config.future - 1):
            raise ValueError(f"poses {tuple(ahead.shape)}: expected ({len(places)}, {self.model.config.future - 1}, ...)")
        seen = torch.tensor(self.settings.history_index) % self.slots  # 0 is the first frame, -1 the current one
        past = torch.cat([seen, torch.tensor([self.slots - 1])])
        text = None if self.text is None else self.text[places]
        known = self.poses[places[:, None], past]
        return Condition(self.latents[places[:, None], seen], self.latents[places, -1], torch.cat([known, ahead], dim=1), text)

    def advance(self, condition: Condition, rows: Sequence[int] | None = None) -> Tensor:
        """Sample the chunk under a `condition` of the same rows; it becomes the newest of the rollouts."""
        places = self._places(rows).tolist()
        shape = (self.model.config.future, *condition.current.shape[1:])
        noise = torch.stack([normal(shape, *self.keys[place], self.drawn[place]) for place in places])
        chunk = self._sample(condition, noise)
        self.append(chunk[:, -1], condition.poses[:, -1], rows)
        for place in places:
            self.drawn[place] += 1
        return chunk

    def append(self, latent: Tensor, pose: Tensor, rows: Sequence[int] | None = None) -> None:
        """Add a chunk that is known already by its last frame. latent: (B, C, Vh, w); pose: (B, D), normalised. No noise is drawn."""
        places = self._places(rows)
        self.latents[places, 1:] = torch.cat([self.latents[places, 2:], latent[:, None]], dim=1)
        self.poses[places, 1:] = torch.cat([self.poses[places, 2:], pose[:, None]], dim=1)

    def fork(self, count: int, keys: Sequence[Key] | None = None) -> "Rollout":
        """`count` independent copies of each rollout, side by side: copy k of rollout b is at b * count + k.

        Copies keep their original's noise, so that the same poses give the same frames. With `keys` (B * count) each has noise of its own.
        """
        copies = self.take(torch.arange(len(self)).repeat_interleave(count))
        if keys is not None:
            copies.keys, copies.drawn = list(keys), [0] * len(keys)
        return copies

    def take(self, index: Index) -> "Rollout":
        """An independent copy of some rollouts, in the order of `index`."""
        places = torch.arange(len(self))[index]
        some = Rollout(self.model, self.settings, self.batch)
        some.latents, some.poses = self.latents[places], self.poses[places]
        some.text = None if self.text is None else self.text[places]
        some.keys, some.drawn = [self.keys[place] for place in places], [self.drawn[place] for place in places]
        return some

    @staticmethod
    def join(parts: Sequence["Rollout"]) -> "Rollout":
        """One batch of all rollouts of `parts`, which have one model and one configuration: one call of the sampler serves them all."""
        whole = Rollout(parts[0].model, parts[0].settings, parts[0].batch)
        whole.latents, whole.poses = torch.cat([part.latents for part in parts]), torch.cat([part.poses for part in parts])
        whole.text = None if parts[0].text is None else torch.cat([part.text for part in parts])
        whole.keys, whole.drawn = [key for part in parts for key in part.keys], [number for part in parts for number in part.drawn]
        return whole

    def state(self) -> dict[str, Tensor]:
        """All of the batch as tensors on the CPU, which safetensors can write. After `load` the next chunks have the same bytes."""
        tensors = {"latents": self.latents, "poses": self.poses} | ({} if self.text is None else {"text": self.text})
        keys = torch.frombuffer(bytearray(json.dumps(self.keys).encode()), dtype=torch.uint8)
        numbers = {"drawn": torch.tensor(self.drawn), "keys": keys}
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()} | numbers

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the batch that `state` returned, here or in another process. Raises ValueError where the history index reaches elsewhere."""
        if state["latents"].shape[1] != self.slots:
            raise ValueError(f"the state holds {state['latents'].shape[1]} frames a rollout; history_index needs {self.slots}")
        held = {name: state[name].to(self.model.device, copy=True) for name in ("latents", "poses", "text") if name in state}
        self.latents, self.poses, self.text = held["latents"], held["poses"], held.get("text")
        self.keys = [tuple(key) for key in json.loads(bytes(state["keys"].tolist()))]
        self.drawn = state["drawn"].tolist()

    def _places(self, rows: Sequence[int] | None) -> Tensor:
        return torch.arange(len(self)) if rows is None else torch.tensor(rows, dtype=torch.long)

    def _sample(self, condition: Condition, noise: Tensor) -> Tensor:
        size = self.batch or len(noise)
        parts = [slice(begin, begin + size) for begin in range(0, len(noise), size)]
        model, settings = self.model, self.settings
        chunks = [model.sample(condition.take(p), noise[p].to(model.device), settings.sampler, settings.precision) for p in parts]
        return torch.cat(chunks)
