"""Extraction as a pipeline: streamed frames are the whole video's, little is in memory, and what breaks is said where it is asked for."""

import dataclasses
import json
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
import torch
from refusals import refused
from tiny import LATENT_SHAPE

from persistworld.config.data import EpisodesConfig, LatentsConfig
from persistworld.config.world_model import AutoencoderConfig
from persistworld.data.encoding import AHEAD, encode_episode
from persistworld.data.episodes import BadEpisode
from persistworld.data.formats.ctrl_world import ProcessedEpisodes
from persistworld.data.frames import resized_batches, resized_frames
from persistworld.data.prefetch import prefetched
from persistworld.data.video import BrokenVideo, Span, read_video, video_batches, write_video
from persistworld.runtime.randomness import normal
from persistworld.world_model.autoencoder import Autoencoder
from persistworld.world_model.views import images_to_float, stack_views

SETTINGS = EpisodesConfig(height=16, width=16, fps=5.0, views=("exterior_1", "wrist"))
FRAMES = 23


class InMemory:
    """One episode of `FRAMES` frames of noise at 10 Hz, handed out batch by batch; it counts its frames that are alive."""

    views, fps = SETTINGS.views, 10.0

    def __init__(self, frames: int = FRAMES, fails_at: int | None = None) -> None:
        self.length, self.fails_at, self.alive, self.most, self.closed = frames, fails_at, 0, 0, 0

    def whole(self, index: int, view: str) -> np.ndarray:
        return np.random.default_rng((index, len(view))).integers(0, 255, (self.length, 16, 16, 3), dtype=np.uint8)

    def frame_batches(self, index: int, view: str, stride: int, batch: int) -> Iterator[np.ndarray]:
        kept = self.whole(index, view)[::stride]
        try:
            for first in range(0, len(kept), batch):
                if self.fails_at is not None and first >= self.fails_at:
                    raise BadEpisode(index, f"video {view} cannot be decoded")
                part = kept[first : first + batch].copy()
                self.alive += len(part)
                self.most = max(self.most, self.alive)
                weakref.finalize(part, self._gone, len(part))
                yield part
                del part
        finally:
            self.closed += 1

    def _gone(self, count: int) -> None:
        self.alive -= count


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """23 frames of 24 x 32 pixels at 15 Hz that all differ."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, np.random.default_rng(0).integers(0, 255, (FRAMES, 24, 32, 3), dtype=np.uint8), 15.0)
    return path


@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("batch", [1, 4, 8, 23, 64])
def test_streamed_frames_are_those_of_the_whole_video(clip, stride, batch):
    parts = list(video_batches(clip, stride, batch))
    assert np.array_equal(np.concatenate(parts), read_video(clip)[::stride])
    assert [len(p) for p in parts[:-1]] == [batch] * (len(parts) - 1) and 1 <= len(parts[-1]) <= batch
    parts = list(video_batches(clip, stride, batch, Span(5, 11)))
    assert np.array_equal(np.concatenate(parts), read_video(clip)[5:16:stride])


def test_frames_left_out_are_counted(clip):
    """The reader compares the count with the data set's list, whatever the stride."""
    stream = video_batches(clip, 3, 4)
    with pytest.raises(StopIteration) as caught:
        while True:
            next(stream)
    assert caught.value.value == FRAMES
    with refused(135, kind=BrokenVideo):
        next(video_batches(clip, 1, 4, Span(135, 3)))


@pytest.mark.parametrize("size", [(16, 16), (8, 16)])
@pytest.mark.parametrize("batch", [1, 5, 6, 12, 64])
@pytest.mark.parametrize("posterior", ["mean", "sample"])
def test_the_pipeline_encodes_what_the_whole_view_would_give(autoencoder, posterior, batch, size):
    """Bit for bit, against frames that are decoded and resized, and noise that is drawn, at once for a view of 12 frames."""
    source, settings = InMemory(), dataclasses.replace(SETTINGS, height=size[0], width=size[1])
    found = encode_episode(source, 3, settings, LatentsConfig(posterior=posterior), batch, autoencoder, 7)
    views = []
    for number, view in enumerate(settings.views):
        whole = torch.cat([*resized_batches(source, 3, settings, view, FRAMES)])
        assert torch.equal(whole, resized_frames(source, 3, settings, view)) and whole.shape == (12, *size, 3)
        shape = (LATENT_SHAPE[0], size[0] // autoencoder.factor, size[1] // autoencoder.factor)
        noise = normal((12, *shape), 7, "posterior", 3, number)  # in pieces the same where a frame has a multiple of 16 numbers
        images = images_to_float(whole)
        rows = torch.arange(12).split(batch)
        with torch.no_grad():
            parts = [autoencoder.encode(images[r], noise[r] if posterior == "sample" else None) for r in rows]
        views.append(torch.cat(parts))
    assert torch.equal(found, stack_views(torch.stack(views, dim=1)))


def test_memory_does_not_grow_with_the_episode(autoencoder):
    """At most the batches that are ahead, the one that is encoded and the one that was, of whatever length."""
    most = {}
    for frames in (40, 400):
        source = InMemory(frames)
        encode_episode(source, 0, SETTINGS, LatentsConfig(posterior="mean"), 4, autoencoder, 0)
        most[frames] = source.most
        assert source.alive == 0
    assert max(most.values()) <= (AHEAD + 2) * 4


def test_a_video_that_breaks_in_the_middle_is_a_bad_episode(tmp_path, clip):
    """Frames before the damage come; then the reason, from the thread that decodes to the caller."""
    (tmp_path / "annotation/train").mkdir(parents=True)
    (tmp_path / "annotation/train/0.json").write_text(json.dumps({"videos": [{}, {}, {}], "states": [[0.0] * 7] * FRAMES}))
    content = bytearray(clip.read_bytes())
    start = content.index(b"mdat") + (content.index(b"moov") - content.index(b"mdat")) // 2
    content[start : start + 4000] = bytes(4000)
    for view in range(3):
        path = tmp_path / f"videos/train/0/{view}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if view == 1 else clip.read_bytes())
    source, read = ProcessedEpisodes(tmp_path), 0
    with refused("episode 0", "0/1.mp4", kind=BadEpisode):
        for part in source.frame_batches(0, "exterior_2", 1, 2):
            read += len(part)
    assert 0 < read < FRAMES
    tiny = AutoencoderConfig(patch=4, latent_channels=4, channels=(32,), layers=1, scaling_factor=0.5)
    settings = EpisodesConfig(height=24, width=32, fps=5.0)
    with refused("episode 0", "0/1.mp4", kind=BadEpisode):
        encode_episode(source, 0, settings, LatentsConfig(posterior="mean"), 2, Autoencoder(tiny), 0)
    assert not _prefetching()


def test_errors_cross_over_and_the_thread_ends(autoencoder):
    source = InMemory(fails_at=8)
    with refused("episode 0", "exterior_1", kind=BadEpisode):
        encode_episode(source, 0, SETTINGS, LatentsConfig(posterior="mean"), 4, autoencoder, 0)
    assert source.closed == 1 and not _prefetching()

    def counting() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    made: list[int] = []
    with closing(prefetched(counting(), 2)) as items:
        assert [next(items) for _ in range(3)] == [0, 1, 2]
    assert len(made) <= 3 + 2 and not _prefetching()  # left early: two were made ahead
    assert list(prefetched(iter(range(9)), 2)) == list(range(9)) and not _prefetching()


def _prefetching() -> bool:
    return any(thread.name == "prefetch" for thread in threading.enumerate())
