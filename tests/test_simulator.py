"""The simulator: deterministic, moving by physics, and true to its own labels."""

from typing import get_args

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from persistworld.config.data import Colour
from persistworld.config.params import load_params
from persistworld.data.episodes import MANIPULATED_OBJECT, ROBOT, VIEWS, frame_stride, split_of
from persistworld.data.video import OPTIONS, write_video
from persistworld.runtime.errors import UserError
from persistworld.simulator.episode import simulate_episode
from persistworld.simulator.tasks import COLOURS, INSTRUCTIONS, sample_task

SMALL = {"frames": 6, "height": 24, "width": 40, "fps": 5.0}


@pytest.fixture(scope="module")
def small():
    return simulate_episode(3, 0, **SMALL)


def _bytes(simulated):
    episode = simulated.episode
    arrays = [episode.pose, episode.joints, episode.action, simulated.masks, *simulated.frames.values()]
    return b"".join(a.tobytes() for a in arrays)


def test_same_seed_and_index_give_the_same_bytes_whatever_ran_before(small):
    other = simulate_episode(4, 0, **SMALL)
    again = simulate_episode(3, 0, **SMALL)
    assert _bytes(again) == _bytes(small)
    assert _bytes(other) != _bytes(small)
    assert _bytes(simulate_episode(3, 1, **SMALL)) != _bytes(small)


def test_shapes_and_units(small):
    episode = small.episode
    assert tuple(small.frames) == VIEWS
    assert all(f.shape == (6, 24, 40, 3) and f.dtype == np.uint8 for f in small.frames.values())
    assert small.masks.shape == (6, 3, 24, 40) and set(np.unique(small.masks)) == {0, 1, 2}
    assert episode.pose.shape == episode.action.shape == (6, 7) and episode.pose.dtype == np.float32
    assert episode.joints.shape == (6, 7)
    assert episode.instruction in INSTRUCTIONS
    assert ((episode.pose[:, 6] >= 0) & (episode.pose[:, 6] <= 1)).all()


def test_gripper_points_down_and_the_arm_follows_its_commands(small):
    episode = small.episode
    down = Rotation.from_euler("xyz", episode.pose[:, 3:6]).as_matrix()[:, :, 2]  # where the hand's z axis points
    assert (down[:, 2] < -0.97).all()
    assert np.abs(episode.action[:-1, :3] - episode.pose[1:, :3]).max() < 0.02
    commanded, reached = (Rotation.from_euler("xyz", e[:, 3:6]) for e in (episode.action[:-1], episode.pose[1:]))
    turn = commanded.inv() * reached
    assert turn.magnitude().max() < 0.05


@pytest.mark.parametrize("index", range(4))
def test_every_view_sees_the_object_at_the_start(index):
    simulated = simulate_episode(index, 0, frames=1, height=24, width=40, fps=5.0)
    assert ((simulated.masks[0] == MANIPULATED_OBJECT).sum((1, 2)) > 0).all()
    assert ((simulated.masks[0] == ROBOT).sum((1, 2)) > 0).all()
    assert all(f.std() > 5 for f in simulated.frames.values())


@pytest.mark.parametrize("index", [1, 2])  # both with a distractor
def test_masks_follow_the_object_colour(index):
    """Asked for an orange object: in the pixels labelled as the object, red exceeds blue; no distractor looks like it."""
    simulated = simulate_episode(index, 0, frames=1, height=48, width=80, fps=5.0, colours=("orange",))
    assert "orange" in simulated.episode.instruction
    assert sample_task(np.random.default_rng([0, index]), ["orange"]).distractor.colour != "orange"
    for view, frames in enumerate(simulated.frames.values()):
        pixels = frames[0][simulated.masks[0, view] == MANIPULATED_OBJECT].astype(float)
        assert (pixels[:, 0] > pixels[:, 2] + 40).mean() > 0.9


def test_parameters_know_the_simulators_colours(tmp_path):
    assert get_args(Colour) == tuple(COLOURS)
    wrong = {"[rde]": r"episodes\.colours\[0\] = 'rde': choose from red, green", "[]": r"episodes\.colours .*at least one"}
    for colours, message in wrong.items():
        (tmp_path / "params.yaml").write_text(f"base_checkpoint: {{source: file}}\nepisodes: {{colours: {colours}}}\n")
        with pytest.raises(UserError, match=message):
            load_params(tmp_path / "params.yaml")


def test_a_placement_succeeds_by_physics_and_a_miss_does_not():
    seconds_only = {"frames": 62, "height": 8, "width": 8, "fps": 5.0}
    tasks = {sample_task(np.random.default_rng([0, index])).intent: index for index in reversed(range(60))}
    assert simulate_episode(tasks["place"], 0, **seconds_only).success
    assert not simulate_episode(tasks["miss"], 0, **seconds_only).success


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"height": 4}, {"fps": 60.0}, {"fps": 0.0}])
def test_sizes_that_cannot_be_simulated(wrong):
    with pytest.raises(UserError, match="cannot simulate"):
        simulate_episode(0, 0, **SMALL | wrong)


def test_split_rule_is_droids_with_its_parameters():
    assert [i for i in range(300) if split_of(i, 100, [99], []) == "validation"] == [99, 199, 299]
    assert [split_of(i, 4, [3], [2]) for i in range(5)] == ["train", "train", "tuning", "validation", "train"]
    with pytest.raises(UserError, match="remainder 4"):
        split_of(0, 4, [4], [])
    with pytest.raises(UserError, match="both"):
        split_of(0, 4, [3], [3])


def test_frame_stride():
    assert frame_stride(15, 5) == 3
    assert frame_stride(14.99, 5) == 3
    assert frame_stride(5, 5) == 1
    for source, target in ((15, 4), (5, 15), (0, 5)):
        with pytest.raises(UserError):
            frame_stride(source, target)


def test_the_same_frames_give_the_same_bytes(tmp_path):
    """Time and again in one process: an encoder that reads memory which nobody wrote finds other things there each time.

    On processors with AVX-512 x264 does so for these frames, unless its macroblock tree is off.
    """
    assert "mbtree=0" in OPTIONS["x264-params"]
    frames = simulate_episode(9, 0, frames=61, height=32, width=48, fps=5.0, colours=("red",)).frames["exterior_1"]
    paths = [tmp_path / f"{k}.mp4" for k in range(6)]
    for path in paths:
        write_video(path, frames, 5.0)
    assert len({path.read_bytes() for path in paths}) == 1
