"""The simulator: deterministic, moving by physics, and true to its own labels."""

from dataclasses import fields
from typing import get_args

import numpy as np
import pytest
from refusals import refused
from scipy.spatial.transform import Rotation

from persistworld.config.data import Colour, OutcomesConfig
from persistworld.config.params import load_params
from persistworld.data.episodes import MANIPULATED_OBJECT, ROBOT, VIEWS, frame_stride, split_of
from persistworld.data.video import OPTIONS, write_video
from persistworld.runtime.errors import UserError
from persistworld.simulator.episode import simulate_episode
from persistworld.simulator.grasping import OPPOSED, landed, opposed
from persistworld.simulator.labels import STAGES
from persistworld.simulator.scene import Scene
from persistworld.simulator.tasks import COLOURS, INSTRUCTIONS, SHAPES, Task, Thing, sample_task

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


@pytest.mark.parametrize("index", [2, 5])  # both with a distractor
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
    wrong = {"[rde]": ("episodes.colours[0] = 'rde'", "red", "green"), "[]": ("episodes.colours",)}
    for colours, named in wrong.items():
        (tmp_path / "params.yaml").write_text(f"base_checkpoint: {{source: file}}\nepisodes: {{colours: {colours}}}\n")
        with refused(*named):
            load_params(tmp_path / "params.yaml")


def test_bad_shares_are_one_line(tmp_path):
    wrong = {
        "{clean: .5}": ("episodes.outcomes = 0.5",),
        "{clean: 1.5, drop: -0.5}": ("episodes.outcomes.clean = 1.5",),
        "{cleen: 1}": ("episodes.outcomes.cleen", "'clean'"),
    }
    for outcomes, named in wrong.items():
        (tmp_path / "params.yaml").write_text(f"base_checkpoint: {{source: file}}\nepisodes: {{outcomes: {outcomes}}}\n")
        with refused(*named):
            load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("base_checkpoint: {source: file}\nepisodes: {outcomes: {clean: .3, shove: .7}}\n")
    shares = load_params(tmp_path / "params.yaml").episodes.outcomes
    planned = [sample_task(np.random.default_rng([0, k]), outcomes=shares).outcome for k in range(400)]
    assert set(planned) == {"clean", "shove"} and 0.22 < planned.count("clean") / 400 < 0.38


def _closing(shape, along=0.0, across=0.0, turn=0.0, lift=0.0):
    """Close `along`, `across` (m) and `turn` (rad) off an object's centre, and rise by `lift`. Whether it is held before and after, and its
    height then."""
    thing = Thing(shape, "red", 0.033, 0.033, (0.48, 0.0), 0.0)
    far = Thing("tray", "white", 0.075, 0.02, (0.48, 0.3), 0.0)
    task = Task("place", "clean", "put the red cube on the white tray", thing, far, None, None)
    scene = Scene(task, np.random.default_rng(0), 8, 8)
    try:
        place, euler = np.array([0.48 + across, along, 0.12]), (np.pi, 0.0, turn)
        scene.place_arm(place, euler, 0.0)
        held = []
        for heights, gripper in ((np.linspace(0.12, 0.03, 30), 0.0), ([0.03] * 20, 1.0), (np.linspace(0.03, 0.03 + lift, 45), 1.0)):
            for height in heights:
                scene.command([*place[:2], height], euler, gripper)
                scene.step(4)
            held.append(scene.holding)
        return held[1], held[2], scene.object_pose()[0][2]
    finally:
        scene.close()


@pytest.mark.parametrize("shape", SHAPES)
def test_opposed_contacts_hold(shape):
    closed, lifted, height = _closing(shape, lift=0.15)
    assert closed and lifted and height > 0.15


@pytest.mark.parametrize(
    "off",
    [{"along": 0.035}, {"along": -0.035}, {"along": 0.02}, {"across": 0.05}, {"along": 0.025, "across": 0.025}, {"turn": np.pi / 4}],
)
def test_closing_beside_the_object_or_on_a_cubes_corners_does_not_hold(off):
    closed, lifted, height = _closing("cube", **off, lift=0.15)
    assert not closed and not lifted and height < 0.05


def test_a_hold_at_the_edge_slips():
    closed, lifted, height = _closing("cube", across=0.027, lift=0.3)
    assert closed and not lifted and height < 0.2


def test_what_faces_the_fingers():
    """Contacts on a cube's faces at increasing angles to the closing direction, and on its top."""
    cube = Thing("cube", "red", 0.03, 0.03, (0, 0), 0)
    for degrees in range(0, 50, 5):
        turn = np.radians(degrees)
        closing = np.array([np.sin(turn), np.cos(turn), 0.0])
        left, right = np.array([[0.0, 0.03, 0.0]]), np.array([[0.0, -0.03, 0.0]])
        assert opposed(cube, left, right, closing) == (turn <= OPPOSED + 1e-9)
        assert not opposed(cube, right, left, closing)  # fingers between which the object does not lie


@pytest.mark.parametrize("shape", SHAPES)
def test_fingers_stand_on_what_lies_below_their_edges(shape):
    thing = Thing(shape, "red", 0.03, 0.03, (0, 0), 0)
    for up in np.eye(3)[[2, 0]] if shape != "cylinder" else np.eye(3)[[2]]:  # upright, and rolled by a quarter turn

        def on(*places, up=up):
            return landed(thing, np.array(places) @ (np.eye(3) if up[2] else np.eye(3)[[2, 1, 0]]), up)

        assert on((0.05, 0.0, 0.034), (0.01, 0.0, 0.034))
        assert not on((0.01, 0.0, 0.04))  # still above
        assert not on((0.028, 0.0, 0.03))  # grazes the edge
        assert on((0.024, 0.0, 0.03)) == (shape != "ball")  # slides down a ball
        assert on((0.025, 0.025, 0.03)) == (shape == "cube")


FAST = {"frames": 61, "height": 8, "width": 8, "fps": 5.0}
FIRST = 30  # index of the first episode in these tests


@pytest.fixture(scope="module")
def played():
    """Three picks of each planned outcome."""
    found = {}
    for outcome in (each.name for each in fields(OutcomesConfig)):
        shares, index = OutcomesConfig(**{outcome: 1.0}), FIRST
        found[outcome] = []
        while len(found[outcome]) < 3:
            if sample_task(np.random.default_rng([0, index]), outcomes=shares).intent != "push":
                found[outcome].append(simulate_episode(index, 0, **FAST, outcomes=shares))
            index += 1
    return found


def test_outcomes_do_what_they_say(played):
    assert all(one.task.outcome == outcome for outcome, each in played.items() for one in each)
    for outcome in ("clean", "regrasp"):
        assert all(one.success and one.stages[:, 2].any() for one in played[outcome])
    for outcome in ("shove", "slip", "drop"):
        assert not any(one.success for one in played[outcome])
    held = {outcome: [one.stages[:, 1] for one in each] for outcome, each in played.items()}
    assert not any(h.any() for h in held["shove"])
    for one in (*played["drop"], *played["early_release"]):
        assert one.stages[:, 2].any()
    for one, h in zip(played["drop"], held["drop"], strict=True):  # the gripper opens in the air, not at the goal
        last = np.flatnonzero(h)[-1]
        assert one.episode.pose[last, 2] > 0.1 and not one.stages[last, 3]
    for one, h in zip(played["regrasp"], held["regrasp"], strict=True):  # after a first closing that holds nothing
        closed = np.flatnonzero(one.episode.action[:, 6] > 0.5)
        assert not h[closed[0] : closed[0] + 5].any() and h.any()
    assert all(one.task.object.shape == "cube" for one in played["wrong_yaw"])
    for one in played["near_miss"]:  # whatever was held, the hand goes on to the goal
        away = np.linalg.norm(one.episode.pose[:, :2] - one.task.goal.xy, axis=1)
        assert away.min() < 0.02


def test_stages_agree_with_each_other_and_with_success(played):
    for one in (one for each in played.values() for one in each):
        reach, grasp, lift, close, inside = one.stages.T
        assert one.stages.shape == (61, len(STAGES)) and one.stages.dtype == bool
        assert not (grasp & ~reach).any() and not (lift & ~grasp).any() and not (inside & ~close).any() and not (inside & grasp).any()
        assert inside[-1] == one.success  # the object rests at the end
    for one in played["clean"]:
        firsts = [int(np.argmax(label)) for label in one.stages.T]
        assert firsts == sorted(firsts) and one.stages.any(0).all() and not one.stages[0].any()


@pytest.mark.parametrize("outcome, done", [("clean", True), ("regrasp", True), ("shove", False), ("early_release", False)])
def test_pushes_have_outcomes_too(outcome, done):
    shares = OutcomesConfig(**{outcome: 1.0})
    index = next(k for k in range(60) if sample_task(np.random.default_rng([0, k]), outcomes=shares).intent == "push")
    one = simulate_episode(index, 0, **FAST, outcomes=shares)
    assert one.success == done and not one.stages[:, 1:3].any()


@pytest.mark.parametrize(
    ("wrong", "named"), [({"frames": 0}, "0 frames"), ({"height": 4}, "4x40"), ({"fps": 60.0}, "60.0 fps"), ({"fps": 0.0}, "0.0 fps")]
)
def test_sizes_that_cannot_be_simulated(wrong, named):
    with refused(named):
        simulate_episode(0, 0, **SMALL | wrong)


def test_split_rule_is_droids_with_its_parameters():
    assert [i for i in range(300) if split_of(i, 100, [99], []) == "validation"] == [99, 199, 299]
    assert [split_of(i, 4, [3], [2]) for i in range(5)] == ["train", "train", "tuning", "validation", "train"]
    with refused("remainder 4"):
        split_of(0, 4, [4], [])
    with refused("remainder 3"):
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
