"""The grasp reader: what counts as caught, what it sees, and that it learns to tell from the picture."""

import numpy as np
import pytest

from persistworld.data.episodes import Episode
from persistworld.policies.grasp_reader import NOTHING, load_grasp_reader, motion_of, save_grasp_reader
from persistworld.runtime.errors import UserError
from persistworld.training.grasp_reader import GraspExamples, examples_of, train_grasp_reader

VIEWS = ("exterior_1", "exterior_2", "wrist")


def closing(stopped_at: float) -> tuple[Episode, np.ndarray]:
    """The hand closes after frame 4; the picture is red where something is caught."""
    grip = np.array([0.0] * 5 + [0.6, stopped_at, stopped_at, stopped_at, stopped_at])
    pose = np.zeros((10, 7), np.float32)
    pose[:, 6] = np.minimum(grip, stopped_at)
    action = np.zeros((10, 7), np.float32)
    action[4:, 6] = 1.0
    frames = np.random.default_rng(int(100 * stopped_at)).integers(0, 60, (10, 3, 16, 16, 3), np.uint8)
    if stopped_at < 0.5:
        frames[:, :, 4:12, 4:12, 0] = 220
    return Episode(0, "", 5.0, pose, None, action, None), frames


def test_fingers_that_stop_short_have_caught_something():
    caught, missed = examples_of(*closing(0.15), 4), examples_of(*closing(0.98), 4)
    assert caught.caught.all() and caught.stop == pytest.approx(0.15)
    assert not missed.caught.any() and missed.stop == 0.0
    assert len(caught.frames) == len(missed.frames) == 5  # from frame 1 on the next four frames see the hand close
    assert not len(examples_of(Episode(0, "", 5.0, np.zeros((10, 7)), None, np.zeros((10, 7)), None), closing(0.1)[1], 4).caught)


def test_what_the_gripper_measures_is_not_seen():
    commands = np.zeros((4, 7))
    open_hand, closed_hand = np.zeros(7), np.append(np.zeros(6), 0.9)
    assert np.array_equal(motion_of(open_hand, commands), motion_of(closed_hand, commands))
    turned = np.zeros((4, 7))
    turned[:, 5] = 2 * np.pi - 0.1
    assert motion_of(open_hand, turned)[0, 4] == pytest.approx(-0.1)


def test_it_learns_to_tell_and_comes_back_from_its_folder(tmp_path):
    examples = GraspExamples.join([examples_of(*closing(at), 4) for at in (0.12, 0.15, 0.18, 0.95, 0.97, 0.99)])
    save_grasp_reader(train_grasp_reader(examples, 30, 0), tmp_path)
    reader = load_grasp_reader(tmp_path)
    for at, expected in ((0.14, examples.stop), (0.96, NOTHING)):
        episode, frames = closing(at)
        observation = {"views": dict(zip(VIEWS, frames[4], strict=True)), "pose": episode.pose[4].astype(float)}
        assert reader(observation, episode.action[4:8]) == pytest.approx(expected, abs=1e-3)
    small = {"views": {view: np.zeros((8, 8, 3), np.uint8) for view in VIEWS}, "pose": np.zeros(7)}
    with pytest.raises(UserError):
        reader(small, np.zeros((4, 7)))
    (tmp_path / "grasp_reader.json").write_text("{}")
    with pytest.raises(UserError):
        load_grasp_reader(tmp_path)
