"""The manifest and the latents that it counts, over a small in-memory source of episodes."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from made_up import encode_shard
from refusals import assert_names, refused

from persistworld.config.data import EpisodesConfig, LatentsConfig
from persistworld.config.evaluation import EvaluationConfig
from persistworld.data.encoding import encode_episodes, join_shard
from persistworld.data.episodes import Episode
from persistworld.data.frames import resized_frames
from persistworld.data.latents import LatentStore, read_shard_indices
from persistworld.data.manifest import (
    build_manifest,
    evaluation_episodes,
    load_manifest,
    save_manifest,
    wanted_indices,
)
from persistworld.runtime.files import read_json
from persistworld.world_model.views import images_to_float, split_views

SETTINGS = EpisodesConfig(
    count=12, modulus=4, validation=(3,), tuning=(2,), splits=("train", "validation"),
    height=16, width=16, fps=5.0, views=("exterior_1", "wrist"), bad_share=0.2,
)  # fmt: skip
BROKEN = 5


class Recorded:
    """Episodes 0 .. 11 of 13 + i frames at 10 Hz; one wrist video is short. Episode 8 names its split."""

    views, fps = SETTINGS.views, 10.0

    def indices(self) -> list[int]:
        return list(range(12))

    def split(self, index: int) -> str | None:
        return "validation" if index == 8 else None

    def episode(self, index: int) -> Episode:
        pose = np.full((13 + index, 7), index, np.float32) + np.linspace(0, 1, 13 + index, dtype=np.float32)[:, None]
        notes = ("no instruction",) if index in (1, 4) else ()
        return Episode(index, "" if notes else f"push {index}", 10.0, pose, None, None, None, notes)

    def frames(self, index: int, view: str) -> np.ndarray:
        short = 4 if index == BROKEN and view == "wrist" else 0
        rng = np.random.default_rng((index, len(view)))
        return rng.integers(0, 255, (13 + index - short, 16, 16, 3), dtype=np.uint8)

    def frame_batches(self, index: int, view: str, stride: int, batch: int) -> Iterator[np.ndarray]:
        kept = self.frames(index, view)[::stride]
        yield from (kept[first : first + batch] for first in range(0, len(kept), batch))


@pytest.fixture(scope="module")
def made(autoencoder, tmp_path_factory):
    """The encoded shards' store, the encoded episodes and the bad ones."""
    folder = tmp_path_factory.mktemp("latents")
    wanted = wanted_indices(SETTINGS, Recorded())
    for shard in (0, 1):
        path = folder / f"shard-{shard}.safetensors"
        latents = LatentsConfig(posterior="mean")
        encode_shard(Recorded(), wanted[shard::2], SETTINGS, latents, 8, autoencoder, 0, path)
    return LatentStore(folder), *read_shard_indices(folder, 2)


@pytest.fixture(scope="module")
def manifest(made):
    return build_manifest(Recorded(), *made, SETTINGS, "euler", 5)


def test_wanted_episodes_follow_the_data_then_the_rule():
    """Residue 2 is tuning and not asked for; episode 8 says itself that it is validation."""
    assert wanted_indices(SETTINGS, Recorded()) == [0, 1, 3, 4, 5, 7, 8, 9, 11]
    assert wanted_indices(SETTINGS) == [0, 1, 3, 4, 5, 7, 8, 9, 11]
    assert wanted_indices(dataclasses.replace(SETTINGS, count=4, splits=("tuning",)), Recorded()) == [2]


def test_entries(manifest):
    assert [e.index for e in manifest.episodes] == [0, 1, 3, 4, 7, 8, 9, 11]
    assert [e.index for e in manifest.split("validation")] == [3, 7, 8, 11]
    assert [e.frames for e in manifest.split("train")] == [7, 7, 9, 11]  # every second of 13 + i
    assert manifest.episodes[2].instruction == "push 3" and manifest.episodes[2].success is None
    assert list(manifest.bad) == [BROKEN]
    assert_names(manifest.bad[BROKEN], "[9, 7]")
    assert manifest.notes == {"no instruction": 2} and [e.index for e in manifest.episodes if e.notes] == [1, 4]


def test_the_recordings_are_not_read_again(made, manifest):
    """DROID's 95,600 files would take twenty minutes: what the manifest says of an episode lies beside its latents."""

    class Closed(Recorded):
        def episode(self, index):
            raise AssertionError

    assert build_manifest(Closed(), *made, SETTINGS, "euler", 5) == manifest


def test_statistics_are_of_the_training_split(manifest):
    """Poses of episode i run from i to i + 1 in every dimension; 0, 1, 4 and 9 are for training."""
    low, high = np.asarray(manifest.statistics.low), np.asarray(manifest.statistics.high)
    poses = np.concatenate([Recorded().episode(i).pose[::2] for i in (0, 1, 4, 9)])
    np.testing.assert_allclose(low, np.percentile(poses, 1, axis=0), rtol=1e-6)
    np.testing.assert_allclose(high, np.percentile(poses, 99, axis=0), rtol=1e-6)
    assert manifest.statistics.normalise(poses).min() == -1 and manifest.statistics.normalise(poses).max() == 1


def test_json_round_trip(manifest, tmp_path):
    save_manifest(manifest, tmp_path / "manifest.json", 5)
    assert [e["windows"] for e in read_json(tmp_path / "manifest.json")["episodes"]][:3] == [3, 3, 4]
    assert load_manifest(tmp_path / "manifest.json") == manifest
    save_manifest(load_manifest(tmp_path / "manifest.json"), tmp_path / "again.json", 5)
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "manifest.json").read_bytes()


def test_an_episode_without_a_whole_chunk_is_bad(made):
    store, encoded, bad = made
    manifest = build_manifest(Recorded(), store, encoded, bad, dataclasses.replace(SETTINGS, bad_share=0.5), "euler", 8)
    assert_names(manifest.bad[0], 7, 8)
    assert [e.index for e in manifest.split("train")] == [4, 9]
    with refused("3 of 9", "episodes.bad_share", store.folder):
        build_manifest(Recorded(), store, encoded, bad, SETTINGS, "euler", 8)


def test_a_damaged_manifest_is_one_line(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    with refused("manifest.json"):
        load_manifest(tmp_path / "manifest.json")


def test_short_episodes_are_left_out(manifest):
    assert [e.index for e in manifest.long_enough("train", 9)] == [4, 9]
    assert [e.index for e in manifest.too_short("validation", 10)] == [3]
    with refused("'validation'", "13 frames"):
        manifest.long_enough("validation", 13)
    settings = EvaluationConfig(split="validation")
    assert [e.index for e in evaluation_episodes(manifest, settings, 8)] == [3, 7, 8, 11]
    assert [e.index for e in evaluation_episodes(manifest, dataclasses.replace(settings, episodes=2), 9)] == [7, 8]


def test_too_many_bad_episodes_fail(made):
    store, encoded, bad = made
    with refused("1 of 9", "episodes.bad_share = 0.1", "episode 5"):
        build_manifest(Recorded(), store, encoded, bad, dataclasses.replace(SETTINGS, bad_share=0.1), "euler", 5)
    with refused("0 of 0"):
        build_manifest(Recorded(), store, {}, {}, SETTINGS, "euler", 5)
    validation_only = {i: e for i, e in encoded.items() if i % 4 == 3}
    evaluated = build_manifest(Recorded(), store, validation_only, {}, SETTINGS, "euler", 5)
    assert [e.index for e in evaluated.split("validation")] == [3, 7, 11]
    with refused("episodes.splits"):
        evaluated.statistics  # noqa: B018


def test_latents_are_scaled_and_stacked(made, autoencoder):
    """Each frame of each view on its own, at the model's frame rate."""
    store = made[0]
    latents = store.latents(9)
    assert latents.shape == (11, 4, 8, 4) and latents.dtype == torch.float32
    images = images_to_float(torch.from_numpy(Recorded().frames(9, "wrist")[[0, 6]]))
    with torch.no_grad():
        expected = autoencoder.sizes.scaling_factor * autoencoder.moments(images)[0]
    torch.testing.assert_close(split_views(latents[[0, 3]], 2)[:, 1], expected, rtol=1e-4, atol=1e-5)


def test_store_reads_rows_in_the_order_asked(made):
    store = made[0]
    whole, poses = store.latents(9), store.poses(9)
    assert torch.equal(store.latents(9, [5, 2, 2, 8]), whole[[5, 2, 2, 8]])
    assert torch.equal(store.latents(9, slice(3, 6)), whole[3:6])
    assert torch.equal(store.poses(9, range(4, 9)), poses[4:9])
    assert torch.equal(poses, torch.from_numpy(Recorded().episode(9).pose[::2].copy()))


def test_no_shards_is_one_line(tmp_path):
    with refused(tmp_path, "'latents'"):
        LatentStore(tmp_path)


def test_sampled_latents_do_not_depend_on_the_batch(autoencoder, tmp_path):
    """The posterior's noise is keyed by episode, view and frame, not by where a call to the encoder begins."""
    found = []
    for batch in (3, 64):
        path = tmp_path / str(batch) / "shard-0.safetensors"
        encode_shard(Recorded(), [1], SETTINGS, LatentsConfig(posterior="sample"), batch, autoencoder, 0, path)
        found.append(LatentStore(path.parent).latents(1))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_frames_are_resized(made):
    settings = dataclasses.replace(SETTINGS, height=8, width=12)
    frames = resized_frames(Recorded(), 0, settings, "wrist")
    assert frames.shape == (7, 8, 12, 3) and frames.dtype == torch.uint8
    assert abs(frames.float().mean().item() - Recorded().frames(0, "wrist")[::2].mean()) < 1


def test_a_killed_shard_takes_up_where_it_stopped(autoencoder, tmp_path):
    class Killed(Recorded):
        read = ()

        def frames(self, index: int, view: str) -> np.ndarray:
            self.read = (*self.read, index)
            if self.read.count(3) == 1 and index == 3:
                raise KeyboardInterrupt
            return super().frames(index, view)

    source, latents = Killed(), LatentsConfig(posterior="mean")
    arguments = (source, [0, 1, 3], SETTINGS, latents, 8, autoencoder, 0)
    with pytest.raises(KeyboardInterrupt):
        encode_episodes(*arguments, tmp_path / "kept", "shard-0")
    assert sorted(p.name for p in (tmp_path / "kept").iterdir()) == ["0.safetensors", "1.safetensors"]
    bad = encode_episodes(*arguments, tmp_path / "kept", "shard-0")
    assert bad == {} and source.read == (0, 0, 1, 1, 3, 3, 3)  # two views each; the third was met twice
    join_shard([0, 1, 3], bad, tmp_path / "kept", tmp_path / "data/shard-0.safetensors")
    encode_shard(Recorded(), *arguments[1:], tmp_path / "whole/shard-0.safetensors")
    for name in ("shard-0.safetensors", "shard-0.json"):
        assert (tmp_path / "data" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(list((tmp_path / "whole").iterdir())) == 2  # nothing but the shard is left


def test_an_episode_that_another_node_kept_to_itself_is_named(autoencoder, tmp_path):
    bad = encode_episodes(Recorded(), [BROKEN], SETTINGS, LatentsConfig(posterior="mean"), 8, autoencoder, 0, tmp_path / "kept", "shard-0")
    with refused("kept/3.safetensors", "runs/"):
        join_shard([BROKEN, 3], bad, tmp_path / "kept", tmp_path / "shard-0.safetensors")
    assert not (tmp_path / "shard-0.safetensors").exists()


class WithLatents(Recorded):
    """Recorded latents of every view as the test's autoencoder makes them, times `scale`; episode 1 has none."""

    def __init__(self, autoencoder, scale: float = 1.0) -> None:
        self.autoencoder, self.scale = autoencoder, scale

    @torch.no_grad()
    def latents(self, index: int, view: str) -> torch.Tensor | None:
        return None if index == 1 else self.scale * self.autoencoder.encode(images_to_float(torch.from_numpy(self.frames(index, view))))


def test_recorded_latents_are_taken_thinned_and_stacked(autoencoder, made, tmp_path):
    path, latents = tmp_path / "shard-0.safetensors", LatentsConfig(source="recorded")
    encode_shard(WithLatents(autoencoder), [0, 1, 3], SETTINGS, latents, 8, autoencoder, 0, path)
    encoded, bad = read_shard_indices(tmp_path, 1)
    assert {index: each.frames for index, each in encoded.items()} == {0: 7, 3: 8} and bad.keys() == {1}
    assert_names(bad[1], "exterior_1", "wrist", "latents.source")
    for index in (0, 3):
        torch.testing.assert_close(LatentStore(tmp_path).latents(index), made[0].latents(index), rtol=1e-4, atol=1e-5)


def test_recorded_latents_that_do_not_fit_are_refused(autoencoder, tmp_path):
    def encode(source, settings=SETTINGS):
        encode_shard(source, [0], settings, LatentsConfig(source="recorded"), 8, autoencoder, 0, tmp_path / "shard-0.safetensors")

    with refused("latents.source = recorded", "episode 0", "exterior_1"):
        encode(WithLatents(autoencoder, scale=5.49))  # 1 / 0.18215: not scaled
    with refused("latents.source = recorded", "episode 0", "exterior_1"):
        encode(WithLatents(autoencoder), dataclasses.replace(SETTINGS, height=32))
    with refused("latents.source = recorded"):
        encode(Recorded())
