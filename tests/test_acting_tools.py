"""replay, drive --keyboard and policy as commands, on a made-up data set and tiny random models, before and after the workflow ran."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import FRAMES, make_clone

import persistworld
from persistworld.cli import main
from persistworld.config.params import load_params
from persistworld.data.formats import open_episodes
from persistworld.data.frames import resized_frames
from persistworld.data.video import read_video
from persistworld.evaluation.frame_metrics import psnr
from persistworld.rollouts.rollout import Starts
from persistworld.rollouts.start_frames import EpisodeStarts
from persistworld.world_model.autoencoder import decode_views, load_autoencoder
from persistworld.world_model.views import images_to_float, stack_views


@pytest.fixture
def clone(tmp_path, monkeypatch):
    monkeypatch.chdir(make_clone(tmp_path))
    return tmp_path


def run(*words: str) -> int:
    return main([*words, "--threads", "1"])


def test_replay_films_and_scores(clone, capsys):
    shutil.copytree("../base", "checkpoints/base")
    shutil.copytree("../base", "checkpoints/post_trained")
    assert run("replay", "0", "199") == 0
    film = read_video("replays/episode-000199.mp4")
    assert len(film) == 9 and film.shape[2] > 3 * 320  # two chunks; three columns
    scores = pd.read_csv("replays/episode-000000.csv")
    assert set(scores["model"]) == {"base", "post_trained"} and set(scores["frame"]) == set(range(9))
    assert {"psnr", "ssim", "lpips"} == set(scores["metric"]) and {"decoded", "raw"} == set(scores["protocol"])
    assert any("199" in line and "post_trained" in line for line in capsys.readouterr().out.splitlines())


def test_replay_is_the_workflows_rollout(clone):
    """Its scores are those of the very frames that `persistworld.rollout` gives."""
    assert run("replay", "1") == 0
    params, source = load_params("params.yaml"), open_episodes("../made_up")
    start, poses = EpisodeStarts(source, params.episodes).start(1), torch.from_numpy(source.episode(1).pose)[None, 1:9]
    model, autoencoder = persistworld.load_world_model("../base"), load_autoencoder("../base")
    first = stack_views(autoencoder.encode(images_to_float(torch.from_numpy(start.views))))[None]
    starts = Starts(first, torch.from_numpy(start.pose.astype(np.float32))[None], model.encode_instructions([start.instruction]))
    latents = persistworld.rollout(model, starts, poses, [1], 0, params.rollout)
    frames = decode_views(autoencoder, latents[0], 3)
    truth = torch.stack([resized_frames(source, 1, params.episodes, view)[:9] for view in params.episodes.views], dim=1)
    scores = pd.read_csv("replays/episode-000001.csv").query("protocol == 'raw' and metric == 'psnr'")
    for place, view in enumerate(params.episodes.views):
        expected = psnr(*(images[:, place].movedim(-1, 1).float() / 255 for images in (frames, truth)))
        found = scores[scores["view"] == view].sort_values("frame")["value"]
        assert np.allclose(found[1:], expected[1:], atol=1e-3)  # frame 0 is the start itself here, and generated again there


def test_drive_by_keyboard(clone):
    assert run("drive", "--keyboard", "lfc", "--episode", "99") == 0
    assert len(read_video("drive.mp4")) == 13
    assert run("drive", "--keyboard", "lfx") == 2
    assert run("drive", "--keyboard", "l", "--step", "7") == 2
    assert run("drive", "--keyboard", "l", "--episode", "5") == 2
    assert run("drive", "--keyboard", "l", "--models", "nowhere") == 2
    assert run("drive", "--keyboard", "l", "--grasp", "nowhere") == 2


def test_a_policy_of_ones_own_in_a_model_and_in_the_simulator(clone):
    Path("mine.py").write_text("from persistworld.policies.policy import Wander as Mine\n")
    assert run("policy", "mine:Mine", "--simulator", "--chunks", "2", "--episode", "3", "--lerobot") == 0
    assert len(read_video("policies/mine-Mine-000003.mp4")) == 9
    for world in ("simulator", "base"):
        episode = open_episodes(f"policies/lerobot_{world}").episode(0)
        assert episode.pose.shape == (9, 7) and episode.joints.shape == (9, 7)
    assert run("policy", "nobody") == 2
    assert run("policy", "still", "--control", "iron") == 2
    assert run("policy", "openpi", "--address", "127.0.0.1:9") == 2


def test_another_robot_can_be_replayed_and_not_driven(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(make_clone(tmp_path, views=2, numbers=3))
    assert run("replay", "2") == 0
    assert run("drive", "--keyboard", "l") == 2
    assert run("policy", "still") == 2
    assert capsys.readouterr().err.count("error:") == 2


def test_an_episode_that_is_too_short_is_named(clone, capsys):
    assert run("replay", "0", "--chunks", "50") == 0  # as many chunks as there are
    assert len(read_video("replays/episode-000000.mp4")) == FRAMES - (FRAMES - 1) % 4
    assert run("replay", "77") == 2 and "77" in capsys.readouterr().err
