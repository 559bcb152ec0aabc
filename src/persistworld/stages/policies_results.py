"""Compare what policies achieve in reality and in the world models: Table 12, Figures 7 and 8, results/metrics/policies.json.

"Real" is the simulator, and a judge scores all rollouts. With policies.labels, people have scored rollouts that were made elsewhere.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.evaluation.policy_ranking import REAL, UNIT, policy_numbers
from persistworld.evaluation.statistics import Resampling
from persistworld.evaluation.votes import read_progress
from persistworld.paper.figure_7 import figure_7
from persistworld.paper.figure_8 import figure_8
from persistworld.paper.policies_page import Parting, write_policies_page
from persistworld.paper.table_12 import policy_notes, table_parts, world_label, write_table_12
from persistworld.policies.evaluation import REPLAYED, PolicyRollouts
from persistworld.policies.initial_states import initial_states
from persistworld.policies.judge import judge_accuracy, reached_in_order
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path, write_json
from persistworld.runtime.workspace import FIGURES, METRICS, POLICIES, POLICIES_PAGE, POLICIES_PROGRESS, POLICIES_REAL, TABLES
from persistworld.simulator.labels import STAGES

OF_TRUE_POSES = "_replayed"  # ends the name of the world
PARTINGS = 4  # rollouts on the page where model and reality differ most
Rollouts = dict[tuple[str, str], PolicyRollouts]  # (world, policy); worlds as in the table of progress


def main(params: Params, args: argparse.Namespace) -> None:
    """Write the table of progress, the metrics, Table 12, Figures 7 and 8 and the page."""
    settings = params.policies
    rollouts: Rollouts = {} if settings.labels else _read(params)
    table = _labels(params) if settings.labels else _table(params, rollouts)
    stages = {name: task.stages for name, task in settings.tasks.items()}
    how = Resampling(params.paper.bootstrap, params.paper.confidence, params.seed)
    numbers = policy_numbers(table, settings.models, stages, how)
    numbers["judge"] = _judged(rollouts) if rollouts else None
    numbers["settings"] = {
        "bootstrap": how.samples, "confidence": how.confidence, "states": settings.states, "replay_states": settings.replay_states,
        "seeds": list(settings.seeds), "scale": params.paper.scale,
    }  # fmt: skip
    for (world, policy), found in rollouts.items():
        _count_lost(numbers, world, policy, found)
    with atomic_path(POLICIES_PROGRESS) as part:
        table.to_csv(part, index=False)
    write_json(METRICS / "policies.json", numbers)
    parts, notes = table_parts(settings.tasks, numbers, params.models), policy_notes(numbers, params.paper.scale)
    write_table_12(parts, notes, params.paper.scale, TABLES)
    note = f"Scale: {params.paper.scale}  ·  " + _short(numbers, settings.states)
    figure_7(_initial(params, rollouts), note, FIGURES)
    figure_8(numbers, settings.models, {name: task.label for name, task in settings.tasks.items()}, params.models, note, FIGURES)
    figures = [FIGURES / f"figure_{number}.png" for number in (8, 7)]
    write_policies_page(POLICIES_PAGE, parts, notes, figures, _partings(params, table, rollouts), params.paper.scale)
    print((TABLES / "table_12.md").read_text())


def _read(params: Params) -> Rollouts:
    settings, found = params.policies, {}
    for policy in settings.names:
        found[REAL, policy] = PolicyRollouts.load(POLICIES_REAL / f"{policy}.safetensors")
        for model in settings.models:
            found[model, policy] = PolicyRollouts.load(POLICIES / model / f"{policy}.safetensors")
            if settings.replay_states:
                found[model + OF_TRUE_POSES, policy] = PolicyRollouts.load(POLICIES / model / f"{policy}{REPLAYED}.safetensors")
    return found


def _table(params: Params, rollouts: Rollouts) -> pd.DataFrame:
    """Progress, a row for each rollout, with the columns of people's labels."""
    task_of = {state.scene: state.task for state in initial_states(params.policies, params.episodes)}
    rows = []
    for (world, policy), found in rollouts.items():
        for row, (state, seed) in enumerate(zip(found.states.tolist(), found.seeds.tolist(), strict=True)):
            task, reached = task_of[state], reached_in_order(found.stages[row])
            count = len(params.policies.tasks[task].stages)
            rows.append(("judge", world, policy, task, state, seed, reached, count, reached / count))
    return pd.DataFrame(rows, columns=["rater", "world", *UNIT, "seed", "reached", "stages", "progress"])


def _labels(params: Params) -> pd.DataFrame:
    """People's labels. Raises UserError if they do not fit the parameters."""
    settings = params.policies
    table = read_progress(settings.labels)
    for column, known in (("policy", settings.names), ("task", settings.tasks), ("world", (REAL, *settings.models))):
        if strange := sorted({*table[column]} - {*known}):
            raise UserError(f"{settings.labels}: {column} {strange[0]} is not in params.yaml (policies), which has {', '.join(known)}")
    for model in settings.models:
        require((table["world"] == model).any(), "policies.models", model, f"{settings.labels} has no rollouts of it; leave it out")
    wrong = table[table["stages"] != table["task"].map({name: len(task.stages) for name, task in settings.tasks.items()})]
    if len(wrong):
        raise UserError(f"{settings.labels}: {wrong.iloc[0]['stages']} stages of {wrong.iloc[0]['task']}; params.yaml names another number")
    return table


def _judged(rollouts: Rollouts) -> dict[str, Any]:
    real = [found for (world, _), found in rollouts.items() if world == REAL]
    judged, truth = (np.concatenate([getattr(found, name) for found in real]) for name in ("stages", "truth"))
    lost = sum(int((~found.seen[:, -1]).sum()) for found in real)
    return {"rollouts": len(judged), "stages": judge_accuracy(judged, truth, STAGES), "lost": lost}


def _count_lost(numbers: dict[str, Any], world: str, policy: str, found: PolicyRollouts) -> None:
    """Add, for each world, the number of rollouts at whose end the object is not visible."""
    agreement = numbers["agreement"]
    model = world.removesuffix(OF_TRUE_POSES)
    if model not in agreement:
        return
    place = agreement[model]["replayed"] if world != model else agreement[model]
    counts = place.setdefault("lost", {"lost": 0, "rollouts": 0})
    counts["lost"] += int((~found.seen[:, -1]).sum())
    counts["rollouts"] += len(found.seen)


def _initial(params: Params, rollouts: Rollouts) -> dict[str, list[np.ndarray]]:
    """Pictures of initial states by task: from the rollouts, or the files that the parameters name."""
    settings = params.policies
    if not rollouts:
        return {task.label: [np.array(Image.open(task.picture).convert("RGB"))] if task.picture else [] for task in settings.tasks.values()}
    first = next(found for (world, _), found in rollouts.items() if world == REAL)
    pictures: dict[str, list[np.ndarray]] = {task.label: [] for task in settings.tasks.values()}
    for row, state in enumerate(initial_states(settings, params.episodes)):
        pictures[settings.tasks[state.task].label].append(_tile(first.frames[row, 0]))
    return pictures


def _tile(views: np.ndarray) -> np.ndarray:
    """(V, H, W, 3) -> an exterior view above the wrist's."""
    return np.concatenate([views[0], views[-1]], axis=0)


def _partings(params: Params, table: pd.DataFrame, rollouts: Rollouts) -> list[Parting]:
    """The rollouts with the largest difference in stages reached, mean over seeds and models; at most one of each policy."""
    settings = params.policies
    if not rollouts:
        return []
    means = table[table["world"].isin([REAL, *settings.models])].pivot_table("reached", UNIT, "world", aggfunc="mean")
    gap = (means[[*settings.models]].sub(means[REAL], axis=0)).mean(axis=1)
    ranked = gap.abs().sort_values(ascending=False, kind="stable").index
    found: dict[str, Parting] = {}
    for rank, (policy, task, state) in enumerate(ranked, 1):
        if policy in found or gap[policy, task, state] == 0 or len(found) == PARTINGS:
            continue
        films, reached = {}, []
        for world in (REAL, *settings.models):
            each = rollouts[world, policy]
            row = int(np.flatnonzero((each.states == state) & (each.seeds == (0 if world == REAL else settings.seeds[0])))[0])
            label = world_label(world, params.models)
            films[label] = np.stack([_tile(views) for views in each.frames[row]])
            reached.append(f"{label} {reached_in_order(each.stages[row])}")
        what = f"{policy.replace('_', ' ')}, {settings.tasks[task].label}, scene {state} · rank {rank} of {len(ranked)}"
        found[policy] = Parting(f"{what} · stages reached: {', '.join(reached)}", films)
    return list(found.values())


def _short(numbers: Mapping[str, Any], states: int) -> str:
    judge = numbers["judge"]
    if judge is None:
        return "judged by people"
    right = ", ".join(f"{name} {found['right']:.1%}" for name, found in judge["stages"].items())
    return f"{states} states a task, seeds {', '.join(map(str, numbers['settings']['seeds']))}  ·  judge right: {right}"
