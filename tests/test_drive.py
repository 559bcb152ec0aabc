"""Driving: keys, models side by side, undo, recordings, and the page's websocket with several tabs."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from tiny import HISTORY_INDEX, INSTRUCTIONS, SAMPLER, VIEWS, make_model

from persistworld.apps.drive import MOST, Drives, drive_app
from persistworld.apps.driving import Drive, pushed
from persistworld.apps.recording import save_episode, save_film
from persistworld.apps.worlds import inhabited
from persistworld.config.data import EpisodesConfig
from persistworld.config.params import Params
from persistworld.config.world_model import RolloutConfig
from persistworld.data.formats import open_episodes
from persistworld.data.video import read_video
from persistworld.robot.actions import Actions
from persistworld.robot.control import EXACT
from persistworld.rollouts.inhabited import Embodiment
from persistworld.rollouts.start_frames import StartFrame
from persistworld.runtime.errors import UserError

PARAMS = Params(
    episodes=EpisodesConfig(height=16, width=16, views=VIEWS), rollout=RolloutConfig(sampler=SAMPLER, history_index=HISTORY_INDEX)
)
ROBOT = Embodiment(Actions("absolute", 4, 5.0), "fingertips", EXACT)
NAMES = ("base", "post_trained")
GO = {"do": "go", "step": 0.02, "angle": 0.1}


class Starts:
    """Four made-up starts in reach of the arm."""

    def indices(self):
        return [0, 1, 2, 3]

    def start(self, index):
        pixels = np.random.default_rng(index).integers(0, 256, (3, 16, 16, 3), np.uint8)
        pose = np.array([0.2 + 0.01 * index, 0.0, 0.2, np.pi, 0.0, 0.0, 0.0])
        return StartFrame(pixels, pose, None, INSTRUCTIONS[index], index)


@pytest.fixture(scope="module")
def models(base, autoencoder):
    return {"base": (base, autoencoder), "post_trained": (make_model(5), autoencoder)}


@pytest.fixture
def drive(models):
    drive = Drive({name: inhabited(parts, PARAMS, ROBOT) for name, parts in models.items()}, Starts())
    drive.reset(1)
    return drive


@pytest.fixture
def drives(models, tmp_path):
    return Drives(models, Starts(), ROBOT, PARAMS, tmp_path)


@pytest.fixture
def client(drives):
    with TestClient(drive_app(drives), base_url="http://localhost") as client:
        yield client


def tab(client):
    return client.websocket_connect("ws://localhost/drive")


def ask(connection, message):
    """The answer, and the frames (n, M, V, H, W, 3) that came with it or None."""
    connection.send_text(message if isinstance(message, str) else json.dumps(message))
    answer = connection.receive_json()
    found = answer.get("started") or answer.get("moved")
    if not found:
        return answer, None
    sheet = np.asarray(Image.open(io.BytesIO(connection.receive_bytes())))
    return found, sheet.reshape(found["frames"], len(NAMES), 16, 3, 16, 3).transpose(0, 1, 3, 2, 4, 5)


def test_keys_are_the_references_and_add_up():
    assert pushed("l").move == (0, 1, 0) and pushed("fu").move == (1, 0, 1) and pushed("lr").move == (0, 0, 0)
    assert (pushed("c").gripper, pushed("o").gripper, pushed("f").gripper, pushed("q").turn) == (1.0, 0.0, None, 1.0)
    with pytest.raises(UserError):
        pushed("x")


def test_models_get_the_same_commands_and_noise(drive):
    before = drive.pose.copy()
    frames = drive.go(pushed("f"), 0.04, 0.1)
    assert frames.shape == (4, 2, 3, 16, 16, 3)
    one, other = drive.models.values()
    assert np.array_equal(one.poses[0], other.poses[0]) and one.pixels.rollout.keys == other.pixels.rollout.keys
    assert drive.pose[0] - before[0] == pytest.approx(0.04)
    assert not np.array_equal(frames[:, 0], frames[:, 1])


def test_undo_comes_back_to_the_same_frames(drive):
    drive.go(pushed("u"), 0.02, 0.1)
    first = drive.go(pushed("c"), 0.02, 0.1)
    drive.go(pushed("d"), 0.02, 0.1)
    assert drive.undo() and drive.undo()
    assert drive.chunks == 1 and len(drive.recording.frames["base"]) == 5 and len(drive.recording.commands) == 4
    assert np.array_equal(drive.go(pushed("c"), 0.02, 0.1), first)
    assert drive.undo() and drive.undo() and not drive.undo()


def test_the_hand_stays_where_the_models_know_the_way(drive):
    for _ in range(3):
        drive.go(pushed("u"), 0.1, 0.1)
    high = drive.models["base"].pixels.rollout.model.statistics.high[2]
    assert drive.pose[2] <= high + 0.051 and "z" in drive.at_edge


def test_recordings_are_read_back(drive, tmp_path):
    for keys in ("f", "c", "q"):
        drive.go(pushed(keys), 0.02, 0.2)
    save_film(tmp_path / "drive.mp4", drive.recording, 5.0, {}, "a title")
    assert len(read_video(tmp_path / "drive.mp4")) == 13
    for expected in (0, 1):
        assert save_episode(tmp_path / "data", drive.recording, "base", VIEWS, 5.0, INSTRUCTIONS[1]) == expected
    source = open_episodes(tmp_path / "data")
    episode = source.episode(1)
    assert source.indices() == [0, 1] and episode.instruction == INSTRUCTIONS[1] and episode.success is None
    assert np.allclose(episode.pose, drive.recording.poses["base"], atol=1e-6) and episode.joints.shape == (13, 7)
    assert np.allclose(episode.action[:12], drive.recording.commands, atol=1e-6)
    films = np.stack([source.frames(1, view) for view in VIEWS], axis=1).astype(int)
    assert np.abs(films - np.stack(drive.recording.frames["base"])).mean() < 4  # H.264


def test_the_page_and_what_it_asks_first(client):
    assert "static/drive.js" in client.get("/").text
    about = client.get("/about").json()
    assert list(about["models"]) == list(NAMES) and about["episodes"] == [0, 1, 2, 3] and about["frames"] == 4


def test_one_tab_drives(client, drives):
    with tab(client) as connection:
        started, frames = ask(connection, {"do": "start", "episode": 2})
        assert started["instruction"] == INSTRUCTIONS[2] and frames.shape[0] == 1
        moved, frames = ask(connection, GO | {"keys": "f"})
        assert moved["chunks"] == 1 and frames.shape[0] == 4
        moved, _ = ask(connection, GO | {"push": {"move": [0, 0.5, 0], "turn": 0, "gripper": 1}})
        assert moved["pose"][1] == pytest.approx(0.01) and moved["grippers"] == dict.fromkeys(NAMES, 1.0)
        moved, back = ask(connection, {"do": "undo"})
        assert moved["chunks"] == 1 and np.array_equal(back[0], frames[-1])
        kept, _ = ask(connection, {"do": "save", "as": "mp4"})
        assert client.get("/" + kept["saved"]["link"]).headers["content-type"] == "video/mp4"
        kept, _ = ask(connection, {"do": "save", "as": "lerobot", "model": "base"})
        assert open_episodes(drives.output / "lerobot_base").indices() == [0]


def test_tabs_do_not_mix_and_free_what_they_had(client, drives):
    with tab(client) as alone:
        ask(alone, {"do": "start", "episode": 1})
        expected = [ask(alone, GO | {"keys": keys})[1] for keys in "fuc"]
    assert not drives.open
    with tab(client) as one, tab(client) as other:
        ask(one, {"do": "start", "episode": 1})
        ask(other, {"do": "start", "episode": 3})
        for keys, frames in zip("fuc", expected, strict=True):
            ask(other, GO | {"keys": "b"})
            assert np.array_equal(ask(one, GO | {"keys": keys})[1], frames)
        assert len(drives.open) == 2
    assert not drives.open


MISTAKES = [
    "no json",
    "[1]",
    {"do": "dance"},
    {"do": "undo"},
    {"do": "start", "episode": 99},
    {"do": "start", "episode": "1"},
    GO | {"keys": "x"},
    GO | {"push": {"move": [1]}},
    GO | {"keys": "f", "step": 5},
    GO | {"keys": "f", "step": "0.1"},
    {"do": "save", "as": "mp4"},
    {"do": "save", "as": "gif"},
]


@pytest.mark.parametrize("message", MISTAKES, ids=str)
def test_mistakes_are_answered_in_a_line_and_the_tab_goes_on(client, message):
    with tab(client) as connection:
        ask(connection, {"do": "start", "episode": 0})
        answer, _ = ask(connection, message)
        assert "\n" not in answer["error"]
        assert ask(connection, GO | {"keys": "f"})[0]["chunks"] == 1


def test_driving_before_a_start_is_answered(client):
    with tab(client) as connection:
        assert "error" in ask(connection, GO | {"keys": "f"})[0]


def test_too_many_tabs_are_told(client, drives):
    drives.open = dict.fromkeys(range(-MOST, 0))
    with tab(client) as connection:
        assert connection.receive_json()["fatal"]


def test_files_beside_the_films_are_not_served(client, drives):
    (drives.output / "secret.txt").write_text("x")
    assert client.get("/saved/secret.txt").status_code == 400
    assert client.get("/saved/drive-..%2Fsecret.txt").status_code in (400, 404)
