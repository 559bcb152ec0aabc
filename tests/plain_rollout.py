"""A second, plain implementation of a batch of rollouts to test the first one against: lists that grow, as in Ctrl-World's scripts."""

import numpy as np
import torch
from torch import Tensor

from persistworld.config.world_model import SamplerConfig
from persistworld.data.latents import LatentStore
from persistworld.runtime.randomness import normal
from persistworld.world_model.model import Condition, WorldModel

Buffer = list[tuple[Tensor, np.ndarray]]  # (latent (C, Vh, w), normalised pose) of the frames that histories are picked from


class Path:
    """One rollout along the recorded poses of an episode from frame `first` on."""

    def __init__(self, model: WorldModel, store: LatentStore, episode: int, first: int, sentence: str) -> None:
        self.model, self.recorded, self.first, self.done = model, store.poses(episode).numpy(), first, 0
        self.buffer: Buffer = [(store.latents(episode)[first], self.pose(first))] * 24
        self.text = model.encode_instructions([sentence])

    def pose(self, frame: int) -> np.ndarray:
        return self.model.statistics.normalise(self.recorded[frame : frame + 1])[0]

    def copy(self) -> "Path":
        twin = object.__new__(Path)
        twin.__dict__ = self.__dict__ | {"buffer": list(self.buffer)}
        return twin

    def condition(self, index: tuple[int, ...]) -> Condition:
        """Of the next chunk, as a batch of one."""
        begin = self.first + 4 * self.done
        poses = [*(self.buffer[i][1] for i in index), *(self.pose(begin + k) for k in range(5))]
        history = torch.stack([self.buffer[i][0] for i in index])
        return Condition(history[None], self.buffer[-1][0][None], torch.from_numpy(np.stack(poses))[None], self.text)

    def add(self, latent: Tensor) -> None:
        self.done += 1
        self.buffer.append((latent, self.pose(self.first + 4 * self.done)))


def next_chunks(model: WorldModel, paths: list[Path], keys: list[tuple], index: tuple[int, ...], sampler: SamplerConfig) -> Tensor:
    """Sample the next chunk (B, L, C, Vh, w) of all paths as one batch, and add it to each. keys: of the noise, chunk number included."""
    parts = [path.condition(index) for path in paths]
    condition = Condition(*(torch.cat([getattr(p, name) for p in parts]) for name in ("history", "current", "poses", "text")))
    noise = torch.stack([normal((5, *part.current.shape[1:]), *key) for part, key in zip(parts, keys, strict=True)])
    chunks = model.sample(condition, noise, sampler)
    for path, chunk in zip(paths, chunks, strict=True):
        path.add(chunk[-1])
    return chunks
