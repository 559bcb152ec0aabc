"""Latent extraction: images per second of decode, resize and encode alone, and of the whole pipeline. Also the projected time for DROID.

An image is one view of one frame. Decoding and resizing use one thread, as in the pipeline. The projection assumes one job per GPU. Without
a GPU, the encoding time is computed instead of measured, and marked as such.
"""

import dataclasses
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.clip import FPS, HEIGHT, WIDTH, write_clip
from benchmarks.footprint import flops
from benchmarks.table import Row, seconds
from persistworld.config.data import EpisodesConfig
from persistworld.config.params import Params
from persistworld.config.world_model import AutoencoderConfig
from persistworld.data.encoding import encode_episode
from persistworld.data.episodes import EpisodeSource, frame_stride
from persistworld.data.formats import open_episodes
from persistworld.data.frames import resized_batches
from persistworld.runtime.errors import UserError
from persistworld.runtime.workspace import EPISODES
from persistworld.world_model.autoencoder import Autoencoder
from persistworld.world_model.views import images_to_float

DROID_STEPS, DROID_BYTES, VIEWS = 27e6, 370e9, 3  # steps at 15 Hz, as counted by the authors; bytes
TF32, UTILISATION = 495e12, 0.4  # dense peak of H100 and H200 in FLOP/s (data sheet); the fraction that convolutions may reach
LARGE = 10e6  # parameters; a larger autoencoder takes seconds per image on a CPU
PATIENCE = 60.0  # seconds; a pipeline that would take longer is not timed
CLIP = 150  # frames
ORDINALS = {2: "second", 3: "third"}


@dataclasses.dataclass(frozen=True)
class Held:
    """A source whose frames are already in memory."""

    batches: list[np.ndarray]
    fps: float

    def frame_batches(self, index: int, view: str, stride: int, batch: int) -> Iterator[np.ndarray]:
        """Yield the frames in memory. The arguments are ignored."""
        return iter(self.batches)


@dataclasses.dataclass(frozen=True)
class Reading:
    """One thread's decoding and resizing of one view: images per second of each, and the images.

    `decode` counts all frames of the video. `resize` counts only the kept frames, every `stride`-th; None if they have the right size.
    """

    decode: float
    resize: float | None
    stride: int
    kept: int
    first: torch.Tensor  # (N, H, W, 3) uint8: a batch

    @property
    def rate(self) -> float:
        """Kept images per second, including decoding and resizing."""
        return 1 / (self.stride / self.decode + (1 / self.resize if self.resize else 0))

    def rows(self, whose: str, what: str) -> list[Row]:
        """Both parts as rows. `what` describes the video."""
        kept = f"; every {ORDINALS.get(self.stride, f'{self.stride}th')} frame is kept" if self.stride > 1 else ""
        height, width = self.first.shape[1:3]
        resize = [Row(f"{whose}resize", self.resize, "images/s", f"one thread, to {width}x{height}")] if self.resize else []
        return [Row(f"{whose}decode", self.decode, "images/s", f"one thread{kept}; {what}"), *resize]


def rows(settings: Params) -> list[Row]:
    """Time the preset's episodes (or a synthetic clip if there are none), then project DROID."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        clip = write_clip(Path(folder) / "clip.mp4", CLIP)
        size = clip.path.stat().st_size / CLIP / 1e3
        made_up = f"made up: {WIDTH}x{HEIGHT} at {FPS} Hz, AV1, {size:.2g} kB a frame"
        source, index, what = _episode(settings.episodes) or (clip, 0, made_up)
        autoencoder = Autoencoder(settings.world_model.autoencoder).to(device).eval().requires_grad_(False)
        own = _own(settings, source, index, what, autoencoder)
        droid = dataclasses.replace(settings.episodes, height=192, width=320, fps=5.0)
        return [*own, *_droid(_read(droid, clip, 0, 64), made_up, device)]


def _episode(settings: EpisodesConfig) -> tuple[EpisodeSource, int, str] | None:
    """The preset's first episode, if its data set exists."""
    for folder in (EPISODES, Path(settings.path)):
        try:
            source = open_episodes(folder)
        except UserError:
            continue
        return source, source.indices()[0], f"{folder}, episode {source.indices()[0]}"
    return None


def _own(settings: Params, source: EpisodeSource, index: int, what: str, autoencoder: Autoencoder) -> list[Row]:
    episodes, batch = settings.episodes, settings.compute.encode_batch
    reading = _read(episodes, source, index, batch)
    encode = _encode(autoencoder, reading.first)
    parts = [*reading.rows("", what), Row("encode", encode, "images/s", f"float32, batch {batch}; random weights")]
    images, serial = reading.kept * len(episodes.views), 1 / (1 / reading.rate + 1 / encode)
    note = f"bound: {_bound(reading, encode)}, {min(reading.rate, encode):.3g}; one part after another: {serial:.3g}"
    if images / serial > PATIENCE:
        return [*parts, Row("pipeline", min(reading.rate, encode), "images/s", f"computed: too slow here to time; {note}")]
    time = seconds(lambda: encode_episode(source, index, episodes, settings.latents, batch, autoencoder, settings.seed))
    return [*parts, Row("pipeline", images / time, "images/s", note)]


def _droid(reading: Reading, made_up: str, device: torch.device) -> list[Row]:
    """Project all of DROID with SVD's autoencoder, from one thread's reading speed and the GPU's encoding speed, if there is a GPU."""
    if device.type == "cuda":
        encode = _encode(Autoencoder(AutoencoderConfig()).to(device).eval().requires_grad_(False), reading.first)
        how = f"measured on {torch.cuda.get_device_name()}, float32 with TF32 convolutions"
    else:
        with torch.device("meta"):
            autoencoder = Autoencoder(AutoencoderConfig())
        autoencoder.to("meta")
        with torch.no_grad():
            each = flops(lambda: autoencoder.encode(images_to_float(reading.first[:1].to("meta"))))
        encode = UTILISATION * TF32 / each
        how = f"COMPUTED: {each / 1e12:.3g} TFLOP an image at {UTILISATION:.0%} of H100's or H200's {TF32 / 1e12:.0f} TFLOP/s (TF32)"
    stored = DROID_STEPS * VIEWS
    kept = stored / reading.stride
    reads, encodes = kept / reading.rate / 3600, kept / encode / 3600
    count = f"{stored / 1e6:.0f} M images stored ({DROID_BYTES / stored / 1e3:.2g} kB each), {kept / 1e6:.0f} M kept"
    bound = f"one job a GPU, reading on one thread; bound: {_bound(reading, encode)}"
    return [
        *reading.rows("DROID: ", made_up),
        Row("DROID: encode", encode, "images/s", how),
        Row("DROID: decode and resize it all", reads, "core-hours", count),
        Row("DROID: encode it all", encodes, "GPU-hours", how.split()[0].rstrip(":")),
        Row("DROID: on 1 GPU", max(reads, encodes), "h", bound),
        Row("DROID: on 8 GPUs", max(reads, encodes) / 8, "h", bound),
        Row("DROID: jobs that keep a GPU busy", encode / reading.rate, "jobs", "each reads on a core of its own"),
    ]


def _bound(reading: Reading, encode: float) -> str:
    return "encode" if encode < reading.rate else "decode and resize"


def _read(episodes: EpisodesConfig, source: EpisodeSource, index: int, batch: int) -> Reading:
    """Time reading one view of an episode."""
    view, stride = episodes.views[0], frame_stride(source.fps, episodes.fps)
    stored = sum(len(part) for part in source.frame_batches(index, view, 1, batch))
    decode = stored / seconds(lambda: deque(source.frame_batches(index, view, stride, batch), maxlen=0))
    held = Held(list(source.frame_batches(index, view, stride, batch)), source.fps)
    kept, resize = sum(len(part) for part in held.batches), None
    if held.batches[0].shape[1:3] != (episodes.height, episodes.width):
        resize = kept / seconds(lambda: deque(resized_batches(held, index, episodes, view, batch), maxlen=0))
    return Reading(decode, resize, stride, kept, next(resized_batches(held, index, episodes, view, batch)))


@torch.no_grad()
def _encode(autoencoder: Autoencoder, frames: torch.Tensor) -> float:
    """Images per second of the encoder, including transfers to the device and back."""
    if autoencoder.device.type == "cpu" and sum(p.numel() for p in autoencoder.parameters()) > LARGE:
        frames = frames[:1]
    return len(frames) / seconds(lambda: autoencoder.encode(images_to_float(frames)).cpu())
