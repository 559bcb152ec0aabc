"""A batch of autoregressive rollouts (paper 3.1; Ctrl-World's evaluation): history buffer, index rule, noise keys.

Evaluation rollouts, the prefixes, candidates and streams of post-training, and the environments all use it.
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

Key = tuple[int | str, ...]  # identifies the noise of one rollout, such as (seed, "rollout", episode)
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
        """Concatenate all parts into one batch, in order."""
        text = None if parts[0].text is None else torch.cat([part.text for part in parts])
        return Starts(torch.cat([part.first for part in parts]), torch.cat([part.pose for part in parts]), text)


class Rollout:
    """B rollouts that advance one chunk at a time. They may have completed different numbers of chunks.

    A chunk has L frames. Its first frame repeats the current frame, so a chunk adds L - 1 frames. The last latent of each chunk is added
    to the history buffer, and `settings.history_index` picks the history of the next chunk from the buffer. In Ctrl-World the buffer starts
    as copies of the first latent and grows. Here only the latents that the index can reach are kept: the first (index 0) and the newest.
    Memory therefore does not grow with the length of a rollout.

    The noise of a rollout's next chunk is a function of its key and the number of chunks drawn with that key. It does not depend on the
    model, the batch size or the other rollouts of the batch.
    """

    def __init__(self, model: WorldModel, settings: RolloutConfig, batch: int = 0) -> None:
        """An empty batch, which `reset` or `load` fills.

        Only the sampler, the history index and the precision of `settings` are used. batch: number of chunks that are sampled at once,
        which bounds activation memory; 0 samples all at once.
        """
        self.model, self.settings, self.batch = model, settings, batch
        self.keys: list[Key] = []
        self.drawn: list[int] = []  # chunks drawn with each key
        self.text: Tensor | None = None  # (B, E)
        # latents: (B, S, C, Vh, w), poses: (B, S, D) normalised. Slot 0 is the first frame, the last slot is the current one.

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def slots(self) -> int:
        """S: the first frame, plus as many of the newest frames as the history index reaches back."""
        return 1 + max(1, -min(self.settings.history_index))

    @property
    def current(self) -> Tensor:
        """(B, C, Vh, w): the newest frame of each rollout."""
        return self.latents[:, -1]

    def reset(self, starts: Starts, keys: Sequence[Key], rows: Sequence[int] | None = None) -> None:
        """Start a new batch with one rollout per key. With `rows`, restart only these rollouts of the batch."""
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
        """Sample the next chunk (B, L, C, Vh, w) of every rollout, or only of `rows`. Its first frame repeats the current frame.

        poses: (B, L - 1, P) of the next L - 1 frames, in m, rad, 0..1. Raises UserError if P does not fit the model, and ValueError for any
        other wrong shape.
        """
        return self.advance(self.condition(poses, rows), rows)

    def condition(self, poses: ArrayLike, rows: Sequence[int] | None = None) -> Condition:
        """The condition of the next chunk, given `poses` as in `step`. Later steps do not change it."""
        places, ahead = self._places(rows), self.model.normalise_poses(poses)
        if ahead.shape[:2] != (len(places), self.model.config.future - 1):
            raise ValueError(f"poses {tuple(ahead.shape)}: expected ({len(places)}, {self.model.config.future - 1}, ...)")
        seen = torch.tensor(self.settings.history_index) % self.slots  # 0 is the first frame, -1 the current one
        past = torch.cat([seen, torch.tensor([self.slots - 1])])
        text = None if self.text is None else self.text[places]
        known = self.poses[places[:, None], past]
        return Condition(self.latents[places[:, None], seen], self.latents[places, -1], torch.cat([known, ahead], dim=1), text)

    def advance(self, condition: Condition, rows: Sequence[int] | None = None) -> Tensor:
        """Sample a chunk with a `condition` for the same rows, and append it to the rollouts."""
        places = self._places(rows).tolist()
        shape = (self.model.config.future, *condition.current.shape[1:])
        noise = torch.stack([normal(shape, *self.keys[place], self.drawn[place]) for place in places])
        chunk = self._sample(condition, noise)
        self.append(chunk[:, -1], condition.poses[:, -1], rows)
        for place in places:
            self.drawn[place] += 1
        return chunk

    def append(self, latent: Tensor, pose: Tensor, rows: Sequence[int] | None = None) -> None:
        """Append a known chunk, given by its last frame. latent: (B, C, Vh, w); pose: (B, D), normalised. No noise is drawn."""
        places = self._places(rows)
        self.latents[places, 1:] = torch.cat([self.latents[places, 2:], latent[:, None]], dim=1)
        self.poses[places, 1:] = torch.cat([self.poses[places, 2:], pose[:, None]], dim=1)

    def fork(self, count: int, keys: Sequence[Key] | None = None) -> "Rollout":
        """`count` independent copies of each rollout: copy k of rollout b has index b * count + k.

        Copies keep the noise of the original, so the same poses give the same frames. With `keys` (B * count) each copy has its own noise.
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
        """One batch with all rollouts of `parts`, which must share model and settings. One sampler call then serves all of them."""
        whole = Rollout(parts[0].model, parts[0].settings, parts[0].batch)
        whole.latents, whole.poses = torch.cat([part.latents for part in parts]), torch.cat([part.poses for part in parts])
        whole.text = None if parts[0].text is None else torch.cat([part.text for part in parts])
        whole.keys, whole.drawn = [key for part in parts for key in part.keys], [number for part in parts for number in part.drawn]
        return whole

    def state(self) -> dict[str, Tensor]:
        """The whole batch as CPU tensors, which safetensors can write. After `load` the next chunks have the same bytes."""
        tensors = {"latents": self.latents, "poses": self.poses} | ({} if self.text is None else {"text": self.text})
        keys = torch.frombuffer(bytearray(json.dumps(self.keys).encode()), dtype=torch.uint8)
        numbers = {"drawn": torch.tensor(self.drawn), "keys": keys}
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()} | numbers

    def load(self, state: dict[str, Tensor]) -> None:
        """Load the result of `state`, here or in another process. Raises ValueError if the history index needs another number of frames."""
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
