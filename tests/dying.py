"""Kills a training in the middle of a step, as `kill -9` does: nothing in the training catches it."""

from persistworld.data.latents import LatentStore


class Killed(BaseException):
    """Stands for the signal."""


class DyingStore(LatentStore):
    """Reads latents `left` times. The next read kills the run."""

    def __init__(self, folder, left: int) -> None:
        super().__init__(folder)
        self.left = left

    def latents(self, episode, rows=slice(None)):
        self.left -= 1
        if self.left < 0:
            raise Killed
        return super().latents(episode, rows)
