"""The shipped policies and their eyes, the judge, what trains them, and the stages of the policy evaluation at tiny size."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from made_up import make_clone, stages

from persistworld.cli import main
from persistworld.config.data import EpisodesConfig
from persistworld.config.policies import PoliciesConfig, TaskConfig
from persistworld.evaluation.votes import PROGRESS
from persistworld.policies.eyes import NUMBERS, Eyes, EyesNetwork, Sight, load_eyes, save_eyes
from persistworld.policies.grasp_reader import GraspNetwork, GraspReader, save_grasp_reader
from persistworld.policies.initial_states import initial_states
from persistworld.policies.judge import Judge, JudgeNetwork, judge_accuracy, load_judge, reached_in_order, save_judge, smoothed
from persistworld.policies.pick_and_place import PickAndPlace, Skill
from persistworld.policies.shipped import SCENES, SKILLS
from persistworld.robot.control import GRIPPER, TABLETOP
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import read_json
from persistworld.simulator.environment import open_scene
from persistworld.simulator.labels import STAGES
from persistworld.training.eyes import eyes_errors, eyes_examples, train_eyes
from persistworld.training.judge import frame_accuracy, placing_scenes, posed_examples, rollout_examples, train_judge

EPISODES = EpisodesConfig(source="simulate", height=16, width=16, colours=("red",))
SEEN = Sight(np.array([0.5, 0.1]), np.array([0.45, -0.12]), 0.3)


def drive(policy: PickAndPlace, stop: float, chunks: int = 10, words: str = "put the red cube in the white bowl") -> np.ndarray:
    """The poses that an arm without physics reaches, (T, 7). stop: the gripper value at which the fingers meet something."""
    pose = np.array([0.4, 0.0, 0.27, np.pi, 0, 0.1, 0])
    poses = [pose]
    policy.reset(3)
    for _ in range(chunks):
        poses += list(TABLETOP.reach(poses[-1], policy.act({"pose": poses[-1], "instruction": words, "views": {}}), stop))
    return np.array(poses)


def test_an_able_policy_grasps_at_the_object_and_lets_go_over_the_goal():
    looks = []
    poses = drive(PickAndPlace(lambda seen: looks.append(seen) or SEEN, Skill("")), stop=0.15)
    closed = np.flatnonzero(poses[:, GRIPPER] > 0.1)
    assert np.allclose(poses[closed[0], :2], SEEN.object, atol=0.01) and poses[closed[0], 2] < 0.04
    assert poses[closed[0], 5] == pytest.approx(SEEN.yaw, abs=0.03)
    after = closed[-1] + 1
    assert np.allclose(poses[after, :2], SEEN.goal, atol=0.01) and poses[after, GRIPPER] < 0.1 and len(looks) == 10
    assert np.linalg.norm(np.diff(poses[:, :3], axis=0), axis=1).max() < 0.06  # as fast as the scripts of the episodes, at most


def test_closing_on_nothing_is_noticed():
    descents = {}
    for retries in (0, 1):
        poses = drive(PickAndPlace(lambda _: SEEN, Skill("", retries=retries)), stop=1.0, chunks=12)
        low = poses[:, 2] < 0.05
        descents[retries] = int((low[1:] & ~low[:-1] & (np.linalg.norm(poses[1:, :2] - SEEN.object, axis=1) < 0.05)).sum())
    assert descents == {0: 1, 1: 2}


def test_defects_are_what_they_are_called():
    def closing(skill: Skill) -> np.ndarray:
        poses = drive(PickAndPlace(lambda _: SEEN, skill), stop=0.15)
        return poses[np.flatnonzero(poses[:, GRIPPER] > 0.1)[0]]

    assert np.linalg.norm(closing(Skill("", offset=0.03))[:2] - SEEN.object) == pytest.approx(0.03, abs=0.005)
    assert closing(Skill("", close_early=0.03))[2] == pytest.approx(closing(Skill(""))[2] + 0.03, abs=0.005)
    assert closing(Skill("", any_yaw=True))[5] == pytest.approx(0.1, abs=0.01)
    dropped = drive(PickAndPlace(lambda _: SEEN, Skill("", drop_early=0.5)), stop=0.15)
    opened = dropped[np.flatnonzero(dropped[:, GRIPPER] > 0.1)[-1] + 1]
    assert np.allclose(opened[:2], (SEEN.object + SEEN.goal) / 2, atol=0.02) and opened[2] > 0.15
    looks = []
    drive(PickAndPlace(lambda seen: looks.append(seen) or SEEN, Skill("", looks_once=True)), stop=0.15)
    assert len(looks) == 1
    wandering = [drive(PickAndPlace(None, Skill("", wanders=True)), stop=1.0) for _ in range(2)]
    assert np.array_equal(*wandering)
    assert len(SKILLS) >= 8 and {skill.eyes for skill in SKILLS.values()} <= SCENES.keys()


def test_a_sight_is_the_networks_numbers():
    again = Sight.of(SEEN.numbers)
    assert np.allclose(again.object, SEEN.object) and np.allclose(again.goal, SEEN.goal) and again.yaw == pytest.approx(SEEN.yaw)
    turned = Sight(SEEN.object, SEEN.goal, SEEN.yaw + np.pi / 2)
    assert np.allclose(turned.numbers, SEEN.numbers, atol=1e-6) and SEEN.numbers.shape == (NUMBERS,)


def test_stages_count_in_order():
    stages = np.zeros((6, 3), bool)
    assert reached_in_order(stages) == 0
    stages[4, 0] = stages[1, 1] = True
    assert reached_in_order(stages) == 1  # the second was there before the first
    stages[4, 1] = stages[5, 2] = True
    assert reached_in_order(stages) == 3
    assert np.array_equal(smoothed(np.array([0, 0, 5, 0, 1, 1.0])), [0, 0, 0, 1, 1, 1])


def test_the_judges_accuracy_counts_both_errors():
    truth, judged = np.zeros((2, 4, 2), bool), np.zeros((2, 4, 2), bool)
    truth[0, 1:] = judged[0, 1:] = True
    judged[1, 3, 0] = True
    found = judge_accuracy(judged, truth, ("reach", "grasp"))
    assert found["reach"] == {"right": 0.5, "false": 1, "of_misses": 1, "missed": 0, "of_hits": 1, "frames": 7 / 8}
    assert found["grasp"]["right"] == 1 and found["grasp"]["frames"] == 1


def random_networks(folder: Path) -> None:
    torch.manual_seed(0)
    save_eyes({name: Eyes(EyesNetwork(3, 16, 16), scenes, 0.01) for name, scenes in SCENES.items()}, folder / "eyes")
    save_judge(Judge(JudgeNetwork(3, 16, 16, len(STAGES)), STAGES), folder / "judge")
    save_grasp_reader(GraspReader(GraspNetwork(3, 16, 16, 4), 0.15), folder / "grasp")


def test_eyes_and_judge_come_back_from_their_folders(tmp_path):
    random_networks(tmp_path)
    judge, eyes = load_judge(tmp_path / "judge"), load_eyes(tmp_path / "eyes", "eyes_20")
    verdict = judge(np.zeros((5, 3, 16, 16, 3), np.uint8))
    assert verdict.stages.shape == (5, 5) and verdict.seen.shape == (5,) and judge.stages == STAGES and eyes.scenes == 20
    views = {name: np.zeros((16, 16, 3), np.uint8) for name in "abc"}
    assert np.isfinite(eyes({"views": views, "pose": np.zeros(7)}).object).all()
    with pytest.raises(UserError):
        judge(np.zeros((5, 3, 8, 8, 3), np.uint8))
    with pytest.raises(UserError):
        eyes({"views": {"a": np.zeros((8, 8, 3), np.uint8)}, "pose": np.zeros(7)})
    with pytest.raises(UserError, match="eyes_9"):
        load_eyes(tmp_path / "eyes", "eyes_9")
    (tmp_path / "judge/judge.json").write_text("{}")
    with pytest.raises(UserError):
        load_judge(tmp_path / "judge")


def test_eyes_and_judge_learn_from_the_simulator():
    examples = eyes_examples([0, 1], 2, 5, EPISODES, np.asarray)
    assert examples.frames.shape == (4, 3, 16, 16, 3) and np.isfinite(examples.target).all()
    scene, task = open_scene(5, 0, EPISODES)
    scene.close()
    assert np.allclose(Sight.of(examples.target[0]).goal, task.goal.xy, atol=1e-6)
    assert set(eyes_errors(train_eyes(examples, 2, 2, 0, "eyes"), examples)) == {"object", "goal", "yaw"}
    scenes = placing_scenes(0, 3, 5, EPISODES)
    rollouts, posed = rollout_examples(scenes[:1], 2, 5, EPISODES, np.asarray), posed_examples(scenes[1:], 3, 5, EPISODES, np.asarray)
    assert rollouts.labels.shape == (8, 6) and rollouts.labels[:, -1].all() and not posed.labels[:, 1].any()
    assert set(frame_accuracy(train_judge(posed, 2, 0), posed)) == {*STAGES, "seen"}


def test_initial_states_are_the_first_scenes_of_each_task():
    tasks = {name: TaskConfig(name, "Put", STAGES) for name in ("put_in_bowl", "stack")}
    states = initial_states(PoliciesConfig(tasks=tasks, states=2, replay_states=1), EPISODES)
    assert [state.task for state in states] == ["put_in_bowl"] * 2 + ["stack"] * 2 and len({state.scene for state in states}) == 4
    with pytest.raises(UserError, match="put_banana_in_box"):
        initial_states(PoliciesConfig(), EPISODES)


PUT = {"label": "Stack", "skill": "Put", "stages": list(STAGES)}
TINY = {
    "tasks": {"stack": PUT}, "names": ["expert", "own_policy:Mine"], "models": ["base"], "labels": None, "states": 2, "replay_states": 1,
    "chunks": 2, "seeds": [0, 1], "eyes": "../eyes", "judge": "../judge", "grasp": "../grasp",
}  # fmt: skip


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    folder = make_clone(tmp_path, changes={"policies": TINY})
    random_networks(tmp_path)
    monkeypatch.chdir(folder)
    shutil.copytree(tmp_path / "base", "checkpoints/base")
    return folder


def test_the_stages_resume_and_write_what_they_promise(clone, capsys):
    Path("own_policy.py").write_text("from persistworld.policies.policy import Still as Mine\n")
    stages("policies_real")
    Path("own_policy.py").rename("away.py")
    sys.modules.pop("own_policy", None)
    assert main(["policies_rollouts", "--model", "base", "--threads", "1"]) == 2 and not Path("data/policies/base").exists()
    [kept] = Path("runs").rglob("expert.safetensors")
    written = kept.stat().st_mtime_ns, kept.read_bytes()
    Path("away.py").rename("own_policy.py")
    stages("policies_rollouts --model base")
    found = Path("data/policies/base/expert.safetensors")
    assert found.read_bytes() == written[1] and not kept.exists()
    stages("policies_results")
    numbers = read_json("results/metrics/policies.json")
    assert numbers["judge"]["rollouts"] == 4 and set(numbers["progress"]) == {"real", "base"}
    assert numbers["agreement"]["base"]["replayed"]["states"] == 1 and numbers["agreement"]["base"]["lost"]["rollouts"] == 8
    rows = pd.read_csv("results/policies_progress.csv")
    assert len(rows) == 2 * (2 + 4 + 1) and set(rows["world"]) == {"real", "base", "base_replayed"}
    tables = [f"tables/table_12.{kind}" for kind in ("md", "csv", "tex")]
    for name in (*tables, "figures/figure_7.png", "figures/figure_8.pdf", "policies.html"):
        assert (Path("results") / name).stat().st_size > 100
    assert "Reach → Grasp → Lift → Move close → Is inside" in Path("results/tables/table_12.md").read_text()


def test_people_may_judge_in_place_of_the_network(clone):
    """The paper's numbers of rollouts: 5 real ones, 11 in a world model; no picture of the initial state is given."""
    rows = []
    for policy, level in (("pi0", 3), ("pi0_fast", 1), ("groot_n1_5", 2)):
        for world, count in (("real", 5), ("base", 11)):
            rows += [("ann", world, policy, "rotate_marker", state, 0, (level + state) % 4, 3, 0, "") for state in range(count)]
    pd.DataFrame(rows, columns=PROGRESS).to_csv("policies.csv", index=False)
    raw = yaml.safe_load(Path("params.yaml").read_text())
    task = {"rotate_marker": {"label": "Rotate marker", "skill": "Rotate", "stages": ["reach", "grasp", "rotate_45"]}}
    raw["policies"] = {"tasks": task, "models": ["base"]}
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    stages("policies_results")
    numbers = read_json("results/metrics/policies.json")
    assert numbers["judge"] is None and -1 <= numbers["agreement"]["base"]["pearson"]["mean"] <= 1
    assert "Reach → Grasp → Rotate 45°" in Path("results/tables/table_12.md").read_text()
    raw["policies"]["names"] = ["pi0"]
    Path("params.yaml").write_text(yaml.safe_dump(raw))
    assert main(["policies_results"]) == 2  # the labels are of other policies, too
