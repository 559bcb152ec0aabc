"""The environments: gymnasium's own checks, branching and coming back, batches, starts; the world model and the simulator alike."""

import dataclasses
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from PIL import Image
from tiny import FRAMES, HISTORY_INDEX, INSTRUCTIONS, SAMPLER, VIEWS, random_poses

import persistworld
from persistworld.config.data import EpisodesConfig
from persistworld.config.world_model import RolloutConfig
from persistworld.robot.actions import Actions
from persistworld.robot.control import EXACT, Follower
from persistworld.rollouts import registration
from persistworld.rollouts.environment import World, WorldModelEnv, WorldModelVectorEnv
from persistworld.rollouts.inhabited import Embodiment
from persistworld.rollouts.pixels import PixelRollout
from persistworld.rollouts.rollout import Rollout, Starts
from persistworld.rollouts.start_frames import StartFrame, start_from_images
from persistworld.runtime.errors import UserError
from persistworld.simulator.environment import SimulatedStarts, TabletopEnv
from persistworld.world_model.autoencoder import decode_views
from persistworld.world_model.views import images_to_float, stack_views

SETTINGS = RolloutConfig(sampler=SAMPLER, chunks=3, history_index=HISTORY_INDEX)
EPISODES = EpisodesConfig(source="simulate", height=16, width=16, views=VIEWS, frames=FRAMES)
SMALL = dataclasses.replace(EPISODES, height=16, width=24)


def start_frame(episode: int) -> StartFrame:
    pixels = np.random.default_rng(episode).integers(0, 256, (3, 16, 16, 3), np.uint8)
    return StartFrame(pixels, random_poses(episode)[0].astype(np.float64), None, INSTRUCTIONS[episode], episode)


def drawn(random, options):
    return start_frame(options.get("episode", int(random.integers(4))))


def world(base, autoencoder, control=EXACT, tool=None, grasp=None, kind="absolute") -> World:
    pixels = PixelRollout(Rollout(base, SETTINGS), autoencoder)
    return World(pixels, Embodiment(Actions(kind, 4, 5.0), tool, control, grasp), drawn, (16, 16), 3)


@pytest.fixture
def env(base, autoencoder) -> WorldModelEnv:
    return WorldModelEnv(world(base, autoencoder), "rgb_array")


def poses_of(episode: int, chunk: int) -> np.ndarray:
    return random_poses(episode)[1 + 4 * chunk : 5 + 4 * chunk]


@pytest.mark.parametrize("kind", ["absolute", "relative", "joint_velocity"])
def test_gymnasium_has_nothing_to_complain_of(base, autoencoder, kind):
    tool = "fingertips" if kind == "joint_velocity" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that poses have no bounds, that no spec is there to test render modes with
        check_env(WorldModelEnv(world(base, autoencoder, tool=tool, kind=kind), "rgb_array"))


def test_the_rollout_is_the_workflows(base, autoencoder, env):
    """The same start, poses and noise give the frames that `persistworld.rollout` gives."""
    env.reset(options={"episode": 2, "noise": 5})
    frames = np.concatenate([env.step(poses_of(2, chunk))[4]["frames"] for chunk in range(3)])
    start = start_frame(2)
    first = stack_views(autoencoder.encode(images_to_float(torch.from_numpy(start.views))))[None]
    starts = Starts(first, torch.from_numpy(start.pose.astype(np.float32))[None], base.encode_instructions([start.instruction]))
    latents = persistworld.rollout(base, starts, random_poses(2)[None, 1:13], [2], 5, SETTINGS)
    assert np.array_equal(frames, decode_views(autoencoder, latents[0, 1:], 3).numpy())


def test_observation_info_and_end(env):
    observation, info = env.reset(seed=0, options={"episode": 1})
    assert info["episode"] == 1 and observation["instruction"] == INSTRUCTIONS[1] and tuple(observation["views"]) == VIEWS
    for chunk in range(3):
        observation, reward, terminated, truncated, info = env.step(poses_of(1, chunk))
        assert (reward, terminated, truncated) == (0.0, False, chunk == 2)
        assert info["frames"].shape == (4, 3, 16, 16, 3) and np.allclose(info["poses"], poses_of(1, chunk), atol=1e-6)
        assert np.array_equal(info["frames"][-1, 2], observation["views"]["wrist"])
    assert env.render().shape == (16, 48, 3)


def test_all_frames_can_be_rendered(base, autoencoder):
    env = WorldModelEnv(world(base, autoencoder), "rgb_array_list")
    env.reset(seed=0)
    frames = env.step(poses_of(0, 0))[4]["frames"]
    shown = env.render()
    assert len(shown) == 5 and np.array_equal(shown[-1][:, 16:32], frames[-1, 1]) and env.render() == []


def test_comes_back_to_the_same_bytes(base, autoencoder, env):
    env.reset(seed=3)
    env.step(poses_of(0, 0))
    state, branch = env.save_state(), env.fork()
    first = [env.step(poses_of(0, chunk))[4]["frames"] for chunk in (1, 2)]
    assert np.array_equal(branch.step(poses_of(0, 1))[4]["frames"], first[0])  # the fork did not follow
    env.restore_state(state)
    assert env.save_state() == state
    elsewhere = WorldModelEnv(world(base, autoencoder))
    elsewhere.reset(seed=9)
    elsewhere.restore_state(state)
    for chunk in (1, 2):
        assert np.array_equal(env.step(poses_of(0, chunk))[4]["frames"], first[chunk - 1])
        assert np.array_equal(elsewhere.step(poses_of(0, chunk))[4]["frames"], first[chunk - 1])
    assert env.reset()[1] == elsewhere.reset()[1]  # what is drawn next, too
    assert np.array_equal(env.step(poses_of(1, 0))[4]["frames"], elsewhere.step(poses_of(1, 0))[4]["frames"])


def test_a_damaged_state_is_one_line(env):
    env.reset(seed=0)
    with pytest.raises(UserError):
        env.restore_state(env.save_state()[:100])


def test_a_batch_is_its_single_environments(base, autoencoder, env):
    batch = WorldModelVectorEnv(world(base, autoencoder), 2)
    _, info = batch.reset(seed=7)
    assert batch.observation_space.contains(batch.reset(seed=7)[0])
    starts = [env.reset(seed=7 + place)[1]["episode"] for place in range(2)]
    assert info["episode"].tolist() == starts
    for chunk in range(5):  # the third step ends both, the fourth starts them again
        actions = np.stack([poses_of(place, chunk % 3) for place in range(2)])
        _, _, _, truncated, info = batch.step(actions)
        assert truncated.tolist() == [chunk == 2] * 2
        assert ("frames" in info) == (chunk != 3)
        if chunk < 3:
            batch_of_one = info["frames"][1].astype(int)
    env.reset(seed=8)
    alone = [env.step(poses_of(1, chunk))[4]["frames"] for chunk in range(3)][-1].astype(int)
    assert np.abs(batch_of_one - alone).max() <= 4  # float32, summed in another order in a batch
    state = batch.save_state()
    once = batch.step(actions)[4]["frames"]
    batch.restore_state(state)
    assert np.array_equal(batch.step(actions)[4]["frames"], once)


def test_commanded_and_reached_differ_by_the_controller(base, autoencoder):
    env = WorldModelEnv(world(base, autoencoder, Follower(pose_share=0.5)))
    observation, _ = env.reset(seed=0)
    command = np.tile(observation["pose"], (4, 1))
    command[:, 0] += 0.1
    after, *_, info = env.step(command)
    moved = info["poses"][:, 0] - observation["pose"][0]
    assert np.allclose(moved, [0.05, 0.075, 0.0875, 0.09375]) and np.allclose(info["commands"], command)
    assert after["pose"][0] == info["poses"][-1, 0]


def test_a_grasp_reader_stops_the_fingers(base, autoencoder):
    seen = []
    env = WorldModelEnv(world(base, autoencoder, grasp=lambda observation, commands: seen.append(commands) or 0.2))
    observation, _ = env.reset(seed=0)
    command = np.tile(observation["pose"], (4, 1))
    for closed in (0.0, 1.0):
        command[:, 6] = closed
        observation = env.step(command)[0]
    assert observation["pose"][6] == pytest.approx(0.2) and seen[-1].shape == (4, 7)


def test_images_of_ones_own(tmp_path, env):
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "black.png")
    images = {view: tmp_path / "black.png" for view in VIEWS}
    start = start_from_images(images, random_poses(0)[0], "push it", EPISODES)
    observation, _ = env.reset(options={"start": start})
    assert observation["instruction"] == "push it" and env.observation_space.contains(observation)
    with pytest.raises(UserError, match="wrist"):
        start_from_images({view: tmp_path / "black.png" for view in VIEWS[:2]}, random_poses(0)[0], "", EPISODES)
    with pytest.raises(UserError, match=r"none\.png"):
        start_from_images({**images, "wrist": tmp_path / "none.png"}, random_poses(0)[0], "", EPISODES)
    with pytest.raises(UserError):
        env.reset(options={"start": dataclasses.replace(start, pose=np.zeros(3))})
    with pytest.raises(UserError, match="episodes"):
        env.reset(options={"episodes": 1})


def test_letters_that_a_space_does_not_know(env):
    start = dataclasses.replace(start_frame(0), instruction="把杯子 up")
    observation, _ = env.reset(options={"start": start})
    assert observation["instruction"] == "??? up" and env.observation_space.contains(observation)


def test_the_simulator_is_an_environment_with_the_same_spaces(base, autoencoder):
    simulator = TabletopEnv(SMALL, chunks=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(simulator)
    starts = SimulatedStarts(SMALL)
    model = dataclasses.replace(world(base, autoencoder, tool=starts.tool), starts=starts, size=(16, 24))
    env = WorldModelEnv(model)
    assert (env.observation_space, env.action_space) == (simulator.observation_space, simulator.action_space)
    seen, begun = simulator.reset(options={"episode": 4})[0], starts.start(4)
    assert seen["instruction"] == begun.instruction and np.array_equal(seen["pose"], begun.pose)
    assert np.array_equal(np.stack(list(seen["views"].values())), begun.views)


def test_the_simulators_commands_state_and_branches():
    env = TabletopEnv(SMALL, chunks=3)
    observation, _ = env.reset(options={"episode": 0})
    command = np.tile(observation["pose"], (4, 1))
    command[:, 1] += np.arange(1, 5) * 0.02
    env.step(command)
    state, branch = env.save_state(), env.fork()
    command[:, 2] += 0.02
    once = env.step(command)
    assert np.abs(once[4]["poses"][-1, :3] - command[-1, :3]).max() < 5e-3 and once[4]["frames"].shape == (4, 3, 16, 24, 3)
    assert once[4]["stages"].shape == (4, 5) and not once[4]["stages"].any()  # far above the object
    env.restore_state(state)
    for again in (env.step(command), branch.step(command)):
        assert np.array_equal(again[4]["frames"], once[4]["frames"]) and np.array_equal(again[4]["poses"], once[4]["poses"])
    with pytest.raises(UserError):
        TabletopEnv(SMALL, scenes=1).restore_state(state)


def test_gymnasium_finds_it():
    """Imported after gymnasium, the package registers both environments."""
    code = "import gymnasium, persistworld; print(*gymnasium.registry)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {registration.WORLD_MODEL, registration.TABLETOP} <= set(done.stdout.split())
    registration.register()
    registration.register()  # once is enough, twice is no error
    env = gymnasium.make(registration.TABLETOP, settings=SMALL, render_mode="rgb_array")
    assert env.reset(seed=0)[0]["pose"].shape == (7,)
    with pytest.raises(UserError, match="nowhere"):
        gymnasium.make(registration.WORLD_MODEL, checkpoint="nowhere", params=Path(__file__).parents[1] / "params.yaml")
