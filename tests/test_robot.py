"""The robot: kinematics against PyBullet's and against DROID's own recordings, actions, and what is reached of a command."""

import json
import os
from pathlib import Path

import numpy as np
import pybullet
import pybullet_data
import pytest
from scipy.spatial.transform import Rotation

from persistworld.robot.actions import Actions
from persistworld.robot.control import EXACT, Follower, toward
from persistworld.robot.kinematics import LOWER, REST, UPPER, forward, inverse, tool_of
from persistworld.runtime.errors import UserError

LINKS = {"flange": 7, "fingertips": 11}  # panda_link8 and panda_grasptarget, as PyBullet numbers them
# Four frames of DROID's episode 1799 (CC BY 4.0): joint positions, and the Cartesian position recorded with them.
DROID = Path(__file__).parent / "droid_joints.json"


@pytest.fixture(scope="module")
def joints():
    return np.random.default_rng(0).uniform(LOWER, UPPER, (20, 7))


@pytest.mark.parametrize("tool", LINKS)
def test_forward_is_pybullets(tool, joints):
    client = pybullet.connect(pybullet.DIRECT)
    try:
        urdf = os.path.join(pybullet_data.getDataPath(), "franka_panda", "panda.urdf")
        robot = pybullet.loadURDF(urdf, useFixedBase=True, physicsClientId=client)
        for angles in joints:
            for joint, angle in enumerate(angles):
                pybullet.resetJointState(robot, joint, angle, physicsClientId=client)
            place, turn = pybullet.getLinkState(robot, LINKS[tool], computeForwardKinematics=1, physicsClientId=client)[4:6]
            found = forward(angles, tool)
            assert np.allclose(found[:3], place, atol=1e-6)
            assert (Rotation.from_euler("xyz", found[3:]) * Rotation.from_quat(turn).inv()).magnitude() < 1e-5
    finally:
        pybullet.disconnect(client)


def test_droids_poses_are_the_flanges():
    recorded = json.loads(DROID.read_text())
    angles, poses = np.array(recorded["joints"]), np.array(recorded["poses"])
    found = forward(angles, "flange")
    assert np.abs(found[:, :3] - poses[:, :3]).max() < 1e-6
    assert (Rotation.from_euler("xyz", found[:, 3:]) * Rotation.from_euler("xyz", poses[:, 3:6]).inv()).magnitude().max() < 1e-6
    assert tool_of(angles, poses) == "flange"


def test_poses_that_are_of_no_panda_are_refused(joints):
    poses = forward(joints, "fingertips")
    assert tool_of(joints, poses) == "fingertips"
    with pytest.raises(UserError):
        tool_of(joints, poses + np.array([0.1, 0, 0, 0, 0, 0]))


@pytest.mark.parametrize("tool", LINKS)
def test_inverse_finds_joints_within_their_limits(tool):
    near = np.random.default_rng(1).uniform(-0.3, 0.3, (10, 7)) + REST
    for pose in forward(near, tool):
        found = inverse(pose, tool)
        assert (found >= LOWER).all() and (found <= UPPER).all()
        assert np.abs(forward(found, tool)[:3] - pose[:3]).max() < 1e-5


def test_follower_goes_its_share_over_the_shortest_turn():
    start = np.array([0.4, 0.0, 0.3, np.pi - 0.1, 0.0, 0.0, 0.0])
    command = np.array([0.5, 0.0, 0.3, -np.pi + 0.1, 0.0, 0.0, 1.0])  # 0.2 rad further, across the jump at pi
    reached = Follower(pose_share=0.5, gripper_step=0.25).reach(start, np.stack([command] * 2))
    assert np.allclose(reached[:, 0], [0.45, 0.475]) and np.allclose(reached[:, 6], [0.25, 0.5])
    turns = [(Rotation.from_euler("xyz", row[3:6]) * Rotation.from_euler("xyz", start[3:6]).inv()).magnitude() for row in reached]
    assert np.allclose(turns, [0.1, 0.15])
    assert np.allclose(EXACT.reach(start, command[None])[0, :3], command[:3])


def test_fingers_stop_at_what_is_between_them():
    start, command = np.zeros(7), np.array([0, 0, 0, 0, 0, 0, 1.0])
    assert np.allclose(EXACT.reach(start, np.stack([command] * 2), stop=0.15)[:, 6], 0.15)
    held = np.array([0, 0, 0, 0, 0, 0, 0.3])
    assert EXACT.reach(held, command[None], stop=0.15)[0, 6] == pytest.approx(0.3)  # a late reading does not push them open
    assert EXACT.reach(held, start[None], stop=0.15)[0, 6] == 0


def test_another_robots_pose_goes_along_a_line():
    assert np.allclose(toward(np.zeros(3), np.ones(3), 0.5), 0.5)


def test_relative_is_absolute_from_the_current_pose():
    pose = np.array([0.4, 0.1, 0.3, 3.1, 0.1, -0.2, 0.0])
    move = np.zeros((4, 7))
    move[:, 0], move[:, 5], move[:, 6] = 0.1, np.pi / 2, 1.0
    commands = Actions("relative", 4, 5.0).commands(move, pose)
    assert np.allclose(commands[:, :3], pose[:3] + np.array([0.1, 0, 0])) and (commands[:, 6] == 1).all()
    turned = Rotation.from_euler("xyz", commands[0, 3:6]) * Rotation.from_euler("xyz", pose[3:6]).inv()
    assert np.allclose(turned.as_rotvec(), [0, 0, np.pi / 2])
    assert np.allclose(Actions("absolute", 4, 5.0).commands(commands, pose), commands)


def test_joint_velocities_go_through_forward_kinematics():
    actions = Actions("joint_velocity", 4, 5.0, rate=15.0)
    assert actions.shape == (12, 8)
    velocities = np.random.default_rng(0).uniform(-0.5, 0.5, (12, 8))
    velocities[:, 7] = 1
    pose = np.append(forward(REST, "flange"), 0.0)
    reached = actions.reached(velocities, pose, REST, "flange", EXACT)
    angles = REST + np.cumsum(velocities[:, :7], 0)[2::3] / 15
    assert np.allclose(reached.joints, angles) and np.allclose(reached.poses[:, :6], forward(angles, "flange"))
    slow = actions.reached(velocities, pose, REST, "flange", Follower(joint_share=0.5))
    assert np.allclose(slow.joints - REST, (angles - REST) / 2) and np.allclose(slow.commands, reached.commands)


@pytest.mark.parametrize(
    "kind, rate, action",
    [("absolute", 15.0, np.zeros((3, 7))), ("absolute", 15.0, np.full((4, 7), np.nan)), ("joint_velocity", 15.0, np.zeros((12, 7)))],
)
def test_actions_of_another_shape_are_refused(kind, rate, action):
    with pytest.raises(UserError):
        Actions(kind, 4, 5.0, rate).reached(action, np.zeros(7), REST, "flange", EXACT)


def test_impossible_actions_are_refused():
    with pytest.raises(UserError):
        Actions("joint_velocity", 4, 5.0, rate=12.0)
    with pytest.raises(UserError):
        Actions("relative", 4, 5.0, numbers=9)
    with pytest.raises(UserError):
        Actions("joint_velocity", 4, 5.0).reached(np.zeros((12, 8)), np.zeros(7), None, None, EXACT)
