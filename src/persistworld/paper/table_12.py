"""Table 12: what counts as progress in each task (as in the paper), and beside it what was measured and how right the judge is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from persistworld.config.models import OURS, THEIRS, Models
from persistworld.config.policies import TaskConfig
from persistworld.paper.parts import Part, write_parts
from persistworld.paper.tables import write_text

TITLE = "Table 12. Partial progress of the tasks"
STAGE_NAMES = {"reach": "Reach", "grasp": "Grasp", "lift": "Lift", "close": "Move close", "inside": "Is inside", "rotate_45": "Rotate 45°"}
ARROW = " → "
NOTHING = "–"
DIFFERENCE = "post_trained_minus_base"  # a key beside the world models


def stage_name(stage: str) -> str:
    return STAGE_NAMES.get(stage, stage.replace("_", " ").capitalize())


def table_parts(tasks: Mapping[str, TaskConfig], numbers: Mapping[str, Any], models: Models) -> list[Part]:
    """All parts. numbers: results/metrics/policies.json."""
    parts = [_progression(tasks), _judge(numbers["judge"]), _progress(tasks, numbers["progress"], models)]
    parts += [_agreement(numbers["agreement"], models), _outcomes(numbers["agreement"], models)]
    return [part for part in parts if part.rows]


def _progression(tasks: Mapping[str, TaskConfig]) -> Part:
    rows = [[task.skill, task.label, ARROW.join(map(stage_name, task.stages))] for task in tasks.values()]
    return Part("As in the paper: each stage, reached in order, gives 1/N of the progress", ["Skill", "Task", "Progression"], rows)


def _judge(judge: Mapping[str, Any] | None) -> Part:
    head = ["Stage", "Right, of rollouts", "Said to be reached, was not", "Was reached, not said", "Right, of frames"]
    if judge is None:
        return Part("", head, [])
    rows = []
    for name, found in judge["stages"].items():
        wrong = [f"{found['false']} of {found['of_misses']}", f"{found['missed']} of {found['of_hits']}"]
        rows.append([stage_name(name), f"{found['right']:.1%}", *wrong, f"{found['frames']:.1%}"])
    caption = f"The judge against the simulator's true state, in {judge['rollouts']} rollouts of scenes that it did not learn from"
    return Part(caption, head, rows)


def _progress(tasks: Mapping[str, TaskConfig], progress: Mapping[str, Any], models: Models) -> Part:
    """Policies by real progress, best first."""
    order = sorted(progress["real"], key=lambda policy: -(progress["real"][policy]["all"]["mean"] or 0))
    worlds = list(progress)
    head = ["Policy", *(f"{world_label(world, models)}: {name}" for name in ("all", *(tasks[t].label for t in tasks)) for world in worlds)]
    rows = []
    for policy in order:
        cells = [_interval(progress[world].get(policy, {}).get("all")) for world in worlds]
        cells += [_share(progress[world].get(policy, {}).get(task)) for task in tasks for world in worlds]
        rows.append([policy.replace("_", " "), *cells])
    return Part("Mean progress, with its interval over initial states", head, rows)


def _agreement(agreement: Mapping[str, Any], models: Models) -> Part:
    head = [
        "World model", "Pearson r", "MMRV", "r without extremes", "MMRV without extremes", "r, policy and task", "Progress minus real",
        "Clear pairs in order", "r, true poses replayed",
    ]  # fmt: skip
    rows = []
    for world, found in agreement.items():
        if world == DIFFERENCE:
            rows.append([f"{models[OURS].label} − {models[THEIRS].label}", _interval(found["pearson"]), *[NOTHING] * 7])
            continue
        inner, pairs, replayed, shown = found["without_extremes"], found["pairs"], found.get("replayed"), NOTHING
        if replayed:
            closed = _share(replayed["pearson_closed_loop_same_states"])
            shown = f"{_share(replayed['pearson'])} (closed loop, same states: {closed})"
        rows.append([
            world_label(world, models), _interval(found["pearson"]), _interval(found["mmrv"]), _interval(inner["pearson"]),
            _interval(inner["mmrv"]), _interval(found["by_policy_and_task"]["pearson"]), _interval(found["optimism"]),
            f"{pairs['right']} of {pairs['clear']}", shown,
        ])  # fmt: skip
    return Part("Does the world model order the policies as reality does?", head, rows)


def _outcomes(agreement: Mapping[str, Any], models: Models) -> Part:
    """False and missed stages, of the closed loop and of replayed true poses, and lost objects."""
    rows, stages = [], []
    for world, found in agreement.items():
        if world == DIFFERENCE:
            continue
        kinds = [("", found)] + ([(", true poses replayed", found["replayed"])] if "replayed" in found else [])
        for what, each in kinds:
            stages = list(each["stages"])
            cells = [f"{c['false']} of {c['of_misses']} / {c['missed']} of {c['of_hits']}" for c in each["stages"].values()]
            lost = each.get("lost")
            rows.append([world_label(world, models) + what, *cells, f"{lost['lost']} of {lost['rollouts']}" if lost else NOTHING])
    return Part(
        "Stages reached in the world model alone (false) / in reality alone (missed), in order, over paired rollouts",
        ["World model", *map(stage_name, stages), "Object lost at the end"], rows,
    )  # fmt: skip


def world_label(world: str, models: Models) -> str:
    return "Real" if world == "real" else models[world].label if world in models else world


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _interval(found: Mapping[str, float | None] | None) -> str:
    if found is None or found["mean"] is None:
        return NOTHING
    return f"{found['mean']:.2f}" + ("" if found["low"] is None else f" [{found['low']:.2f}, {found['high']:.2f}]")


def write_table_12(parts: Sequence[Part], notes: Sequence[str], scale: str, folder: Path) -> None:
    """Write table_12.{csv,md,tex}. The csv has one text a row: part, row, column, text."""
    long = [
        {"part": part.caption, "row": row[0] if part.head[0] != "Skill" else row[1], "column": name, "text": text}
        for part in parts
        for row in part.rows
        for name, text in zip(part.head[1:], row[1:], strict=True)
    ]
    write_parts(folder, "table_12", TITLE, parts, notes, scale)
    write_text(folder / "table_12.csv", pd.DataFrame(long).to_csv(index=False))


def policy_notes(numbers: Mapping[str, Any], scale: str) -> list[str]:
    """What a reader must know to compare these numbers with others."""
    how = numbers["settings"]
    who = "People" if numbers["judge"] is None else "One judge, a network that sees the frames alone, in every world,"
    notes = [
        f"Scale: {scale}." + (' "Real" is the simulator.' if numbers["judge"] is not None else ""),
        f"{who} said which stages were reached. Progress = stages reached in order / all stages.",
        "Pearson r and MMRV compare the policies' means over tasks. MMRV = mean over i of max over j of "
        "|R_i - R_j| * 1[(S_i > S_j) != (R_i > R_j)], with R the real and S the world model's progress (SIMPLER, arXiv 2405.05941); "
        "0 is best.",
        f"Brackets: {how['confidence']:.0%} bootstrap interval over initial states ({how['bootstrap']} samples). Policies and worlds with "
        "the same states share the draws.",
        f"Extremes: the policies with the least and the most real progress, {' and '.join(numbers['extremes'])}. r is flattered by "
        "policies that span the whole scale.",
    ]
    if numbers["judge"] is not None:
        notes.append(
            "True poses replayed: the world model gets the poses that the policy reached in reality, in "
            f"{how['replay_states']} states of each task. In the closed loop it gets the poses that a model of the robot predicts, whose "
            "gripper a grasp reader sets from the model's own frames. The difference is what that adds."
        )
    return notes
