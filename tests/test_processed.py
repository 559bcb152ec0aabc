"""Ctrl-World's processed layout: a tiny folder with every oddity, and the real sample where it is there."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refused

from persistworld.config.data import EpisodesConfig
from persistworld.config.world_model import AutoencoderConfig
from persistworld.data.episodes import VIEWS, BadEpisode
from persistworld.data.formats import open_episodes
from persistworld.data.formats.ctrl_world import ProcessedEpisodes
from persistworld.data.recorded_latents import RecordedLatents
from persistworld.data.video import write_video
from persistworld.world_model.autoencoder import Autoencoder
from persistworld.world_model.views import split_views, stack_views

SAMPLE = Path(__file__).parents[2] / "shared/droid_sample"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample of DROID episodes is not beside this clone")
T, RAW = 4, 11  # frames, and raw frames at 15 Hz


def annotation(name, split="train"):
    """What Ctrl-World's extraction writes, with numbers that tell raw row and column apart."""
    raw = np.arange(RAW)[:, None] + np.arange(7) / 10
    states = np.concatenate([raw[:, :6], np.zeros((RAW, 1))], axis=1)[::3]
    return {
        "texts": ["Pick up the cup"], "episode_id": int(name) if name.isdecimal() else name, "success": 1,
        "video_length": T, "state_length": T, "raw_length": RAW,
        "videos": [{"video_path": f"videos/{split}/{name}/{k}.mp4"} for k in range(3)],
        "latent_videos": [{"latent_video_path": f"latent_videos/{split}/{name}/{k}.pt"} for k in range(3)],
        "states": states.tolist(), "joints": np.concatenate([raw, raw[:, :1]], axis=1)[::3].tolist(),
        "observation.state.joint_position": raw.tolist(),
        "action.cartesian_position": raw[:, :6].tolist(), "action.gripper_position": raw[:, 6].tolist(),
    }  # fmt: skip


def write(root, name, split="train", change=None, fps=5.0, views=3, latents=False):
    """One episode of `T` frames of 16 x 24 pixels, each view and frame of its own grey."""
    raw = annotation(name, split) | (change or {})
    path = root / f"annotation/{split}/{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({k: v for k, v in raw.items() if v is not ...}))
    for view in range(views):
        video = root / f"videos/{split}/{name}/{view}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        greys = 60 * view + 20 + 10 * np.arange(T, dtype=np.uint8)
        write_video(video, np.broadcast_to(greys[:, None, None, None], (T, 16, 24, 3)).copy(), fps)
        if latents:
            kept = root / f"latent_videos/{split}/{name}/{view}.pt"
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.save(torch.full((T, 4, 2, 3), float(view)), kept)
    return root


def test_the_layout_is_chosen_by_looking_and_read(tmp_path):
    write(write(tmp_path, "7", latents=True), "199", "val")
    source = open_episodes(tmp_path)
    assert isinstance(source, ProcessedEpisodes) and source.fps == 5.0 and source.views == VIEWS
    assert source.indices() == [7, 199] and [source.split(i) for i in (7, 199)] == ["train", "validation"]
    episode = source.episode(7)
    assert episode.notes == () and episode.success is True and episode.instruction == "Pick up the cup"
    np.testing.assert_allclose(episode.pose[:, 0], [0, 3, 6, 9])
    np.testing.assert_allclose(episode.joints[2], 6 + np.arange(7) / 10, rtol=1e-6)
    np.testing.assert_allclose(episode.action[1], 3 + np.arange(7) / 10, rtol=1e-6)
    frames = source.frames(7, "wrist")
    assert frames.shape == (T, 16, 24, 3) and np.abs(frames.mean((1, 2, 3)) - [140, 150, 160, 170]).max() < 2
    assert source.masks(7) is None


@pytest.mark.parametrize(("number", "last"), [(1, "exterior_1"), (2, "exterior_2"), (4, "exterior_3")])
def test_one_to_four_views(tmp_path, number, last):
    videos = [{"video_path": f"videos/train/5/{k}.mp4"} for k in range(number)]
    source = open_episodes(write(tmp_path, "5", change={"videos": videos}, views=number))
    assert len(source.views) == number and source.views[-1] == last
    assert abs(source.frames(5, last)[0].mean() - (60 * (number - 1) + 20)) < 2


def test_the_folder_decides_the_split_and_not_the_index(tmp_path):
    write(write(tmp_path, "99"), "3", "val")
    source = open_episodes(tmp_path)
    assert (source.split(99), source.split(3)) == ("train", "validation")


@pytest.mark.parametrize(
    ("change", "more", "note"),
    [
        ({"joints": ...}, {}, "joints taken from observation.state.joint_position"),
        ({"joints": ..., "observation.state.joint_position": ...}, {}, "no joints"),
        ({"texts": [""]}, {}, "no instruction"),
        ({"texts": ...}, {}, "no instruction"),
        ({"texts": []}, {}, "no instruction"),
        ({"texts": [None]}, {}, "no instruction"),
        ({"episode_id": "5"}, {}, "episode_id is not a number"),
        ({"episode_id": 6}, {}, "episode_id is not the file's name"),
        ({}, {"views": 2}, "no video of wrist"),
        ({}, {"fps": 4.0}, "exterior_1 plays at 4 fps and is taken as 5 Hz"),
    ],
)
def test_oddities_are_dealt_with_and_said(tmp_path, change, more, note):
    episode = open_episodes(write(tmp_path, "5", change=change, **more)).episode(5)
    assert note in episode.notes and len(episode.pose) == T and episode.fps == 5.0
    assert (episode.joints is None) == (note == "no joints")
    if note.startswith("joints taken"):
        np.testing.assert_allclose(episode.joints, annotation("5")["observation.state.joint_position"][::3], rtol=1e-6)


@pytest.mark.parametrize(("recorded", "success"), [(0, False), ("0", False), ("1", True), (True, True), ("False", False), (None, None)])
def test_a_success_is_zero_or_one_as_number_or_text(tmp_path, recorded, success):
    assert open_episodes(write(tmp_path, "5", change={"success": recorded})).episode(5).success is success


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"states": ...}, ("annotation/train/5.json", "states")),
        ({"states": [[0.0] * 7] * 2}, (2, 4)),
        ({"states": [[0.0] * 7] * 3 + [[0.0] * 6]}, ("states",)),
        ({"states": [[0.0] * 7] * 2 + [[float("nan")] * 7] * 2}, ("frame 2",)),
        ({"success": "yes"}, ("5.json", "success", "'yes'")),
        ({"success": [1, 1]}, ("success", "[1, 1]")),
        ({"success": 2}, ("5.json", "success", 2)),
        ({"success": 0.7}, ("success", 0.7)),
        ({"texts": {"en": "push"}}, ("texts", "dict")),
    ],
)
def test_what_cannot_be_used_is_a_bad_episode(tmp_path, change, named):
    with refused(*named, kind=BadEpisode) as caught:
        open_episodes(write(tmp_path, "5", change=change)).episode(5)
    assert caught.value.index == 5


def test_missing_broken_and_wrong_files(tmp_path):
    write(write(tmp_path, "5", views=2), "6", change={"video_length": 6, "states": [[0.0] * 7] * 6})
    (tmp_path / "annotation/train/8.json").write_text('{"states": [')
    source = open_episodes(tmp_path)
    with refused("episode 5", "2.mp4", kind=BadEpisode):
        source.frames(5, "wrist")
    with refused("episode 6", 4, 6, kind=BadEpisode):
        source.frames(6, "wrist")
    with refused("episode 8", "annotation/train/8.json", kind=BadEpisode):
        source.episode(8)
    with refused("episode 4", "annotation", kind=BadEpisode):
        source.episode(4)
    with refused("side"):
        source.frames(5, "side")


def test_ids_that_are_no_numbers_follow_the_largest_number(tmp_path):
    for name, split in (("kitchen_b", "val"), ("12", "train"), ("kitchen_a", "train")):
        write(tmp_path, name, split)
    source = open_episodes(tmp_path)
    assert source.indices() == [12, 13, 14] and [source.split(i) for i in (13, 14)] == ["train", "validation"]
    assert "episode_id is not a number" in source.episode(13).notes


@pytest.mark.parametrize("name", ["7", "cup"])
def test_an_episode_in_both_splits_is_refused(tmp_path, name):
    write(write(tmp_path, name), name, "val")
    with refused(name):
        open_episodes(tmp_path)


def test_folders_without_annotations(tmp_path):
    (tmp_path / "annotation").mkdir()
    with refused("annotation"):
        open_episodes(tmp_path)
    write(tmp_path, "1", "test")
    with refused("test"):
        open_episodes(tmp_path)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_latents_are_read_checked_and_never_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = open_episodes(write(write(tmp_path, "1", latents=True), "2"))
    assert source.latents(1, "wrist").shape == (T, 4, 2, 3) and source.latents(1, "wrist").unique().tolist() == [2.0]
    assert source.latents(2, "wrist") is None
    path = tmp_path / "latent_videos/train/1/0.pt"
    for content, named in (
        (torch.zeros(T + 4, 4, 2, 3), ("(8, 4, 2, 3)",)),
        ({"a": torch.zeros(1)}, ("dict",)),
        (Harmful(), ()),
    ):
        torch.save(content, path)
        with refused("episode 1", "latent_videos/train/1/0.pt", *named, kind=BadEpisode):
            source.latents(1, "exterior_1")
    path.write_bytes(path.read_bytes()[:40])
    with refused("episode 1", "latent_videos/train/1/0.pt", kind=BadEpisode):
        source.latents(1, "exterior_1")
    assert not Path("harm").exists()


@needs_sample
def test_every_episode_of_the_sample_is_read_and_its_oddities_said():
    source = open_episodes(SAMPLE)
    assert source.indices() == [0, 3, 5, 6, 199, 1799] and source.views == VIEWS
    assert {i: source.split(i) for i in source.indices()} == {
        0: "train", 3: "train", 5: "train", 6: "train", 199: "validation", 1799: "validation",
    }  # fmt: skip
    lengths, notes = {}, {}
    for index in source.indices():
        episode = source.episode(index)
        lengths[index], notes[index] = len(episode.pose), set(episode.notes)
        assert episode.pose.shape[1] == episode.joints.shape[1] == episode.action.shape[1] == 7
        assert len(episode.joints) == len(episode.action) == len(episode.pose)
        assert episode.pose[:, 6].min() >= 0 and episode.pose[:, 6].max() <= 1.01
    assert lengths == {0: 56, 3: 80, 5: 62, 6: 39, 199: 33, 1799: 41}
    joints, words = "joints taken from observation.state.joint_position", "no instruction"
    assert notes == {0: {joints, words}, 3: {joints}, 5: {joints, words}, 6: {joints, words}, 199: set(), 1799: {words}}
    assert source.frames(199, "wrist").shape == (33, 192, 320, 3)


@needs_sample
def test_recorded_joints_are_every_third_raw_row():
    """So the stand-in for a missing `joints` is what would have been there."""
    raw = json.loads((SAMPLE / "annotation/val/199.json").read_text())
    episode = open_episodes(SAMPLE).episode(199)
    joints, poses = (np.array(raw[f"observation.state.{n}_position"])[::3] for n in ("joint", "cartesian"))
    np.testing.assert_allclose(episode.joints, joints, rtol=1e-6)
    np.testing.assert_allclose(episode.pose[:, :6], poses, rtol=1e-6)


@needs_sample
@pytest.mark.parametrize(("index", "frames"), [(6, 39), (199, 33)])
def test_recorded_latents_stack_as_the_reference_does(index, frames):
    """Ctrl-World fills rows 24 k .. 24 k + 23 of a (T, 4, 72, 40) tensor with view k."""
    source = open_episodes(SAMPLE)
    parts = [source.latents(index, view) for view in VIEWS]
    assert all(part.shape == (frames, 4, 24, 40) and part.dtype == torch.float32 for part in parts)
    theirs = torch.zeros(frames, 4, 72, 40)
    for k, part in enumerate(parts):
        theirs[:, :, 24 * k : 24 * (k + 1)] = part
    ours = stack_views(torch.stack(parts, dim=1))
    assert torch.equal(ours, theirs) and torch.equal(split_views(ours, 3), torch.stack(parts, dim=1))
    assert 0.5 < ours.std() < 1.5  # scaled by 0.18215: of unit size, where SVD's own are about five


@needs_sample
def test_episodes_without_latents_say_so():
    assert open_episodes(SAMPLE).latents(0, "wrist") is None


@needs_sample
def test_the_samples_latents_are_refused_by_an_autoencoder_that_did_not_make_them():
    """They fit by shape (4 x 24 x 40), and a random autoencoder of SVD's layout and scaling shows that values are looked at."""
    torch.manual_seed(0)
    stranger = Autoencoder(AutoencoderConfig(channels=(32, 32, 32, 32), layers=1)).eval()
    settings = EpisodesConfig(height=192, width=320)
    with refused("latents.source"):
        RecordedLatents(open_episodes(SAMPLE), settings, stranger).episode(199)
    small = Autoencoder(AutoencoderConfig(patch=2, channels=(32, 32, 32, 32), layers=1)).eval()
    with refused("(4, 24, 40)", "(4, 12, 20)"):
        RecordedLatents(open_episodes(SAMPLE), settings, small).episode(199)
