"""Run every policy from every initial state in one world, and judge the rollouts.

With a world model, the poses that each policy reached in the simulator are replayed, too: the row "replayed true poses". Finished policies
are kept in runs/ until all are done, so a stopped run continues with the first unfinished policy.
"""

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import numpy as np
import torch

from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.config.reading import digest
from persistworld.policies.evaluation import PolicyRollouts, replay_in_model, run_in_model, run_in_simulator
from persistworld.policies.grasp_reader import load_grasp_reader
from persistworld.policies.initial_states import InitialState, initial_states
from persistworld.policies.judge import load_judge
from persistworld.policies.shipped import find_policy
from persistworld.robot.control import TABLETOP
from persistworld.rollouts.inhabited import Embodiment, Inhabited
from persistworld.rollouts.making import actions_of, load_parts
from persistworld.rollouts.pixels import PixelRollout
from persistworld.rollouts.rollout import Rollout
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path, sha256
from persistworld.runtime.lifeline import end_with
from persistworld.runtime.progress import track
from persistworld.runtime.provenance import code_digest
from persistworld.runtime.workspace import CHECKPOINTS, POLICIES, RUNS
from persistworld.simulator.environment import TOOL, SimulatedStarts

OPTIONS = {"--world": {"required": True, "help": "simulator, or a model of policies.models"}}
SIMULATOR, REPLAYED = "simulator", "-replayed"


def main(params: Params, args: argparse.Namespace) -> None:
    """Write data/policies/WORLD/POLICY.safetensors, and for a model POLICY-replayed.safetensors."""
    settings = params.policies
    if args.world != SIMULATOR:
        settings.require_model(args.world)
        params = params.for_run(args.world)
    require(settings.labels is None, "policies.labels", settings.labels, "people judge these rollouts: nothing is rolled out here")
    judge, states = load_judge(settings.judge), initial_states(settings, params.episodes)
    for name, task in settings.tasks.items():
        require(task.stages == judge.stages, f"policies.tasks.{name}.stages", task.stages, f"the judge knows {', '.join(judge.stages)}")
    unfinished = RUNS / "policies" / args.world / _made_from(params, args.world)
    unfinished.mkdir(parents=True, exist_ok=True)
    names = [name for name in settings.names if not _whole(unfinished, name, args.world, settings.replay_states)]
    if args.world == SIMULATOR:
        _simulate(params, states, names, unfinished, args.threads)
    else:
        _roll_out(params, args.world, states, names, unfinished)
    with atomic_path(POLICIES / args.world) as part:
        shutil.copytree(unfinished, part)
    shutil.rmtree(unfinished)
    with contextlib.suppress(OSError):  # not empty after a run with other parameters
        unfinished.parent.rmdir()


def _whole(folder: Path, name: str, world: str, replayed: int) -> bool:
    """Whether an earlier run finished this policy."""
    return all((folder / f"{name}{end}.safetensors").exists() for end in (("", REPLAYED) if world != SIMULATOR and replayed else ("",)))


def _simulate(params: Params, states: Sequence[InitialState], names: Sequence[str], folder: Path, workers: int) -> None:
    """A process for each policy, `workers` at once."""
    job = partial(_simulate_policy, params, states, folder)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, end_with, (os.getpid(),)) as pool:
        try:
            for future in track(as_completed([pool.submit(job, name) for name in names]), len(names), "policies in the simulator"):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _simulate_policy(params: Params, states: Sequence[InitialState], folder: Path, name: str) -> None:
    torch.set_num_threads(1)
    settings = params.policies
    new_policy = partial(find_policy, name, settings.eyes)
    found = run_in_simulator(new_policy, states, settings.scenes, settings.chunks, params.episodes, load_judge(settings.judge))
    found.save(folder / f"{name}.safetensors")


def _roll_out(params: Params, world: str, states: Sequence[InitialState], names: Sequence[str], folder: Path) -> None:
    known, settings = params.models[world], params.policies
    model, autoencoder = load_parts(CHECKPOINTS / known.checkpoint, CHECKPOINTS / known.base)
    judge, grasp = load_judge(settings.judge), load_grasp_reader(settings.grasp)
    source = SimulatedStarts(params.episodes, settings.scenes)
    starts = [source.start(state.scene) for state in states]
    replayed = [row for row, state in enumerate(states) if row - _first(states, state.task) < settings.replay_states]
    for name in track(names, len(names), f"policies in {world}"):
        new_policy = partial(find_policy, name, settings.eyes)
        policy = new_policy()
        robot = Embodiment(actions_of(model, params.episodes, policy.kind, policy.rate), TOOL, TABLETOP, grasp)
        pixels = PixelRollout(Rollout(model, params.rollout, params.compute.rollout.batch), autoencoder)
        found = run_in_model(new_policy, Inhabited(pixels, robot), starts, settings.seeds, settings.chunks, judge)
        if not np.isfinite(found.poses).all():
            raise UserError(f"policy {name}: its poses are not finite numbers")
        if replayed:
            real = PolicyRollouts.load(POLICIES / SIMULATOR / f"{name}.safetensors")
            some = [starts[row] for row in replayed]
            poses = real.poses[replayed]
            replay_in_model(pixels, some, poses, settings.seeds[0], judge).save(folder / f"{name}{REPLAYED}.safetensors")
        found.save(folder / f"{name}.safetensors")


def _first(states: Sequence[InitialState], task: str) -> int:
    return next(row for row, state in enumerate(states) if state.task == task)


def _made_from(params: Params, world: str) -> str:
    """A hash of everything that determines the rollouts, so that a file of another run is never taken for one of this."""
    settings = params.policies
    folders = [Path(settings.eyes), Path(settings.judge)]
    if world != SIMULATOR:
        known = params.models[world]
        folders += [Path(settings.grasp), *(CHECKPOINTS / name for name in {known.checkpoint, known.base}), POLICIES / SIMULATOR]
    files = sorted(file for folder in folders for file in folder.glob("*.safetensors"))
    parts = [digest(params.policies, params.episodes, params.rollout), code_digest("stages.policies_rollouts"), *map(sha256, files)]
    content = "\n".join(parts)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
