"""Rollouts in pixel space: takes uint8 frames and raw poses, returns uint8 frames."""

from collections.abc import Sequence

import numpy as np
import torch

from persistworld.rollouts.rollout import Key, Rollout, Starts
from persistworld.rollouts.start_frames import StartFrame
from persistworld.world_model.autoencoder import Autoencoder, decode_views
from persistworld.world_model.views import images_to_float, stack_views


class PixelRollout:
    """A batch of rollouts of one model, with encoding and decoding. `rollout` is the latent batch, which has fork, state and load."""

    def __init__(self, rollout: Rollout, autoencoder: Autoencoder) -> None:
        self.rollout, self.autoencoder = rollout, autoencoder

    @property
    def views(self) -> tuple[str, ...]:
        return self.rollout.model.views

    @property
    def new_frames(self) -> int:
        """n = L - 1: number of frames that a chunk adds."""
        return self.rollout.model.config.future - 1

    @torch.no_grad()
    def reset(self, starts: Sequence[StartFrame], keys: Sequence[Key], rows: Sequence[int] | None = None) -> np.ndarray:
        """Start all rollouts or `rows` at `starts`. Returns the first frames as the model sees them, (B, V, H, W, 3) uint8."""
        model = self.rollout.model
        images = images_to_float(torch.from_numpy(np.stack([start.views for start in starts])))
        latents = [self.autoencoder.encode(views) for views in images]  # one by one, so that the bytes do not depend on the batch
        first = stack_views(torch.stack(latents)).contiguous()
        text = model.encode_instructions([start.instruction for start in starts])
        pose = torch.from_numpy(np.stack([start.pose for start in starts]).astype(np.float32))
        self.rollout.reset(Starts(first.to(model.device), pose, text), keys, rows)
        return decode_views(self.autoencoder, first, len(self.views)).numpy()

    def step(self, poses: np.ndarray, rows: Sequence[int] | None = None) -> np.ndarray:
        """The next frames (B, n, V, H, W, 3) uint8 for the reached `poses` (B, n, P), for all rollouts or `rows`."""
        new = self.rollout.step(torch.from_numpy(np.asarray(poses, np.float32)), rows)[:, 1:]
        frames = decode_views(self.autoencoder, new.flatten(0, 1), len(self.views))
        return frames.reshape(*new.shape[:2], *frames.shape[1:]).numpy()
