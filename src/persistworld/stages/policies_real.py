"""Run every policy from every initial state in the simulator, which stands for reality, and judge the rollouts."""

import argparse
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import torch

from persistworld.config.params import Params
from persistworld.config.reading import digest
from persistworld.policies.evaluation import run_in_simulator
from persistworld.policies.initial_states import InitialState, initial_states
from persistworld.policies.judge import load_judge
from persistworld.policies.resuming import world_folder
from persistworld.policies.shipped import find_policy
from persistworld.runtime.lifeline import end_with
from persistworld.runtime.progress import track
from persistworld.runtime.provenance import code_digest
from persistworld.runtime.workspace import POLICIES_REAL


def main(params: Params, args: argparse.Namespace) -> None:
    """Write data/policies/simulator/POLICY.safetensors, with a process for each policy, --threads at once."""
    settings = params.policies
    settings.require_rollouts(load_judge(settings.judge).stages)
    states = initial_states(settings, params.episodes)
    made_from = [digest(settings, params.episodes), code_digest("stages.policies_real")]
    spawn = multiprocessing.get_context("spawn")
    with world_folder(POLICIES_REAL.name, made_from, [Path(settings.eyes), Path(settings.judge)]) as folder:
        paths = {name: folder / f"{name}.safetensors" for name in settings.names}
        missing = {name: path for name, path in paths.items() if not path.exists()}
        with ProcessPoolExecutor(args.threads, spawn, end_with, (os.getpid(),)) as pool:
            try:
                jobs = [pool.submit(partial(_simulate, params, states), name, path) for name, path in missing.items()]
                for job in track(as_completed(jobs), len(jobs), "policies in the simulator"):
                    job.result()
            except BaseException:  # e.g. an interrupt: stop without the rest
                pool.shutdown(cancel_futures=True)
                raise


def _simulate(params: Params, states: Sequence[InitialState], name: str, path: Path) -> None:
    torch.set_num_threads(1)
    settings, new_policy = params.policies, partial(find_policy, name, params.policies.eyes)
    judge = load_judge(settings.judge)
    run_in_simulator(new_policy, states, settings.scenes, settings.chunks, params.episodes, judge).save(path)
