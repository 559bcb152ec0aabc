"""Uses the latents that a data set contains (Ctrl-World's `latent_videos/`), after a check that they fit the autoencoder."""

import torch
from torch import Tensor

from persistworld.config.data import EpisodesConfig
from persistworld.data.episodes import BadEpisode, EpisodeSource, LatentSource, frame_stride
from persistworld.data.frames import resized_frames
from persistworld.runtime.errors import UserError
from persistworld.world_model.autoencoder import Autoencoder
from persistworld.world_model.views import images_to_float, stack_views

TOLERANCE = 0.5  # relative to a frame's norm; a sample of the posterior is far below, another scaling or autoencoder far above
ENCODE = "set latents.source to encode"


class RecordedLatents:
    """Reads recorded latents and stacks them as `encode_episode` does. The first episode is compared with the autoencoder's encoding."""

    def __init__(self, source: EpisodeSource, settings: EpisodesConfig, autoencoder: Autoencoder) -> None:
        """Raises UserError when the layout of `source` has no latents."""
        if not isinstance(source, LatentSource):
            raise UserError(f"latents.source = recorded: the layout of {settings.path} has no latents; {ENCODE}")
        self._source, self._settings, self._autoencoder, self._checked = source, settings, autoencoder, False

    def episode(self, index: int) -> Tensor:
        """Scaled, stacked latents (T, C, V * h, w) float32 of one episode at the world model's frame rate.

        Raises BadEpisode when a view has no latents, or when views differ in length. Raises UserError when the latents do not fit the
        autoencoder.
        """
        stride = frame_stride(self._source.fps, self._settings.fps)
        views = [self._source.latents(index, view) for view in self._settings.views]
        if missing := [name for name, found in zip(self._settings.views, views, strict=True) if found is None]:
            # Missing views are not encoded here. The data set does not record the weights, or whether latents are means or samples, so
            # that encoded views might differ from recorded ones.
            raise BadEpisode(index, f"no recorded latents of {', '.join(missing)} (none are encoded to go with others; {ENCODE} for all)")
        if len({len(v) for v in views}) != 1:
            raise BadEpisode(index, f"recorded latents of views differ in length: {[len(v) for v in views]}")
        self._check_shapes(index, views)
        stacked = stack_views(torch.stack(views, dim=1))[::stride]
        if not self._checked:
            self._check_values(index, views)
            self._checked = True
        return stacked.contiguous()

    def _check_shapes(self, index: int, views: list[Tensor]) -> None:
        sizes, factor = self._autoencoder.sizes, self._autoencoder.factor
        wanted = (sizes.latent_channels, self._settings.height // factor, self._settings.width // factor)
        for name, found in zip(self._settings.views, views, strict=True):
            if tuple(found.shape[1:]) != wanted:
                raise UserError(
                    f"latents.source = recorded: those of episode {index}, {name}, are {tuple(found.shape[1:])} a frame, but the "
                    f"checkpoint's autoencoder makes {wanted} at episodes.height x width; {ENCODE}"
                )

    @torch.no_grad()
    def _check_values(self, index: int, views: list[Tensor]) -> None:
        """Raise UserError unless the encoded first frame of each view is close to the recorded latents (same scaling and autoencoder)."""
        for name, found in zip(self._settings.views, views, strict=True):
            frame = resized_frames(self._source, index, self._settings, name)[:1]
            encoded = self._autoencoder.encode(images_to_float(frame))[0].cpu()
            error = ((found[0] - encoded).norm() / encoded.norm()).item()
            if not error <= TOLERANCE:
                raise UserError(
                    f"latents.source = recorded: those of episode {index}, {name}, differ by {error:.0%} from what the checkpoint's "
                    f"autoencoder makes of the same frame: another autoencoder or scaling; {ENCODE}"
                )
