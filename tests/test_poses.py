"""Pose representation and normalisation, against Ctrl-World's statistics of DROID and against other libraries."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refused
from scipy.spatial.transform import Rotation

from persistworld.data.formats import open_episodes
from persistworld.world_model.poses import PoseStatistics, pose_statistics, represent

SAMPLE = Path(__file__).parents[2] / "shared/droid_sample"
needs_sample = pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample of DROID episodes is not beside this clone")


def random_poses(count, width=7):
    rng = np.random.default_rng(0)
    return rng.uniform(-3, 3, (count, width)).astype(np.float32)


def test_statistics_are_the_1st_and_99th_percentile():
    ramp = np.repeat(np.arange(101, dtype=np.float32)[:, None], 7, axis=1)
    found = pose_statistics(ramp, "euler")
    assert found.low == (1.0,) * 7 and found.high == (99.0,) * 7
    poses = random_poses(357)
    found = pose_statistics(poses, "euler")
    wanted = torch.quantile(torch.from_numpy(poses), torch.tensor([0.01, 0.99]), dim=0)
    np.testing.assert_allclose([found.low, found.high], wanted, rtol=1e-5)


def test_normalisation_is_linear_between_the_percentiles_and_clipped_outside():
    statistics = PoseStatistics("euler", (-1.0,) * 7, (3.0,) * 7)
    poses = np.repeat(np.array([[-2], [-1], [0], [1], [3], [9]], np.float32), 7, axis=1)
    np.testing.assert_allclose(statistics.normalise(poses)[:, 0], [-1, -1, -0.5, 0, 1, 1])
    assert statistics.normalise(poses).dtype == np.float32


def test_a_number_that_never_moves_stays_finite():
    found = pose_statistics(np.ones((50, 7), np.float32), "euler").normalise(np.ones((2, 7), np.float32))
    assert np.isfinite(found).all() and np.abs(found).max() <= 1


@pytest.mark.parametrize("width", [4, 7, 14])
def test_poses_of_another_robot_pass_as_they_are(width):
    poses = random_poses(200, width)
    statistics = pose_statistics(poses, "euler")
    assert len(statistics.low) == width and statistics.normalise(poses).shape == (200, width)


@pytest.mark.parametrize(("rotation", "width"), [("euler", 14), ("euler", 1), ("euler", 6), ("continuous", 14), ("continuous", 6)])
def test_poses_of_another_width_than_the_statistics_are_one_line(rotation, width):
    """One number would be taken for seven, fourteen are numpy's error."""
    statistics = pose_statistics(random_poses(50), rotation)
    extra = 3 if rotation == "continuous" else 0
    with refused(f"{width + extra} numbers", f"rotation {rotation}", 7 + extra):
        statistics.normalise(random_poses(5, width))


def test_continuous_rotation_wants_angles():
    with refused("world_model.rotation = continuous", "4 numbers", "euler"):
        pose_statistics(random_poses(50, 4), "continuous")
    assert represent(random_poses(5, 6), "continuous").shape == (5, 9)  # without a gripper
    assert represent(random_poses(5, 14), "continuous").shape == (5, 17)


def test_continuous_rotation_is_two_columns_of_the_matrix():
    poses = random_poses(20)
    found = represent(poses, "continuous")
    assert found.shape == (20, 10)
    np.testing.assert_array_equal(found[:, :3], poses[:, :3])
    np.testing.assert_array_equal(found[:, 9:], poses[:, 6:])
    for row, (x, y, z) in zip(found, poses[:, 3:6].astype(float), strict=True):
        # Fixed axes: first about x, then about y, then about z.
        about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
        about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
        about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
        matrix = about_z @ about_y @ about_x
        np.testing.assert_allclose(row[3:9], np.concatenate([matrix[:, 0], matrix[:, 1]]), atol=1e-6)
        both = np.stack([row[3:6], row[6:9], np.cross(row[3:6], row[6:9])], axis=1)
        np.testing.assert_allclose(both, Rotation.from_euler("xyz", [x, y, z]).as_matrix(), atol=1e-6)


def test_only_the_continuous_rotation_survives_the_wrap_at_pi():
    poses = np.zeros((2, 7), np.float32)
    poses[:, 3] = [np.pi - 0.01, -np.pi + 0.01]  # 0.02 rad apart
    assert np.abs(np.diff(represent(poses, "euler"), axis=0)).max() > 6
    assert np.abs(np.diff(represent(poses, "continuous"), axis=0)).max() < 0.021


@needs_sample
def test_the_sample_under_ctrl_worlds_statistics():
    """stat.json holds the percentiles of all of DROID; theirs is 2 (x - low) / (high - low + 1e-8) - 1, clipped."""
    recorded = json.loads((SAMPLE / "stat.json").read_text())
    low, high = np.array(recorded["state_01"]), np.array(recorded["state_99"])
    source = open_episodes(SAMPLE)
    poses = np.concatenate([source.episode(i).pose for i in source.indices()])
    theirs = np.clip(2 * (poses - low) / (high - low + 1e-8) - 1, -1, 1)
    ours = PoseStatistics("euler", tuple(low), tuple(high)).normalise(poses)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    # Six of 95,600 episodes: their numbers lie between the percentiles of all. An open gripper is 0, the lower one.
    assert (np.abs(ours[:, :6]) < 1).mean() > 0.99
    mine = pose_statistics(poses, "euler")
    slack = 0.1 * (high - low)
    assert (np.array(mine.low) > low - slack).all() and (np.array(mine.high) < high + slack).all()
