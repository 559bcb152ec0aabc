"""Run every policy from every initial state in a world model, and judge the rollouts.

Also replays the poses that each policy reached in the simulator: the row "true poses replayed".
"""

import argparse
from functools import partial
from pathlib import Path

from persistworld.config.params import Params
from persistworld.config.reading import digest
from persistworld.policies.evaluation import REPLAYED, PolicyRollouts, replay_in_model, run_in_model
from persistworld.policies.grasp_reader import load_grasp_reader
from persistworld.policies.initial_states import initial_states
from persistworld.policies.judge import load_judge
from persistworld.policies.resuming import world_folder
from persistworld.policies.shipped import find_policy
from persistworld.robot.control import TABLETOP
from persistworld.rollouts.inhabited import Embodiment, Inhabited
from persistworld.rollouts.making import actions_of, load_parts
from persistworld.rollouts.pixels import PixelRollout
from persistworld.rollouts.rollout import Rollout
from persistworld.runtime.progress import track
from persistworld.runtime.provenance import code_digest
from persistworld.runtime.workspace import CHECKPOINTS, POLICIES_REAL
from persistworld.simulator.environment import TOOL, SimulatedStarts

OPTIONS = {"--model": {"required": True, "help": "of policies.models"}}


def main(params: Params, args: argparse.Namespace) -> None:
    """Write data/policies/MODEL/POLICY.safetensors and POLICY-replayed.safetensors."""
    params.policies.require_model(args.model)
    params, known = params.for_run(args.model), params.models[args.model]
    settings, checkpoints = params.policies, [CHECKPOINTS / known.checkpoint, CHECKPOINTS / known.base]
    judge, grasp = load_judge(settings.judge), load_grasp_reader(settings.grasp)
    settings.require_rollouts(judge.stages)
    states = initial_states(settings, params.episodes)
    made_from = [digest(settings, params.episodes, params.rollout), code_digest("stages.policies_rollouts")]
    networks = [Path(settings.eyes), Path(settings.judge), Path(settings.grasp), POLICIES_REAL, *dict.fromkeys(checkpoints)]
    model, autoencoder = load_parts(*checkpoints)
    pixels = PixelRollout(Rollout(model, params.rollout, params.compute.rollout.batch), autoencoder)
    source = SimulatedStarts(params.episodes, settings.scenes)
    starts = [source.start(state.scene) for state in states]
    replayed = [row for row in range(len(states)) if row % settings.states < settings.replay_states]  # of each task
    with world_folder(args.model, made_from, networks) as folder:
        for name in track(settings.names, len(settings.names), f"policies in {args.model}"):
            path, replay = folder / f"{name}.safetensors", folder / f"{name}{REPLAYED}.safetensors"
            new_policy = partial(find_policy, name, settings.eyes)
            if not path.exists():
                policy = new_policy()
                actions = actions_of(model, params.episodes, policy.kind, policy.rate)
                inside = Inhabited(pixels, Embodiment(actions, TOOL, TABLETOP, grasp))
                run_in_model(new_policy, inside, starts, settings.seeds, settings.chunks, judge).save(path)
            if replayed and not replay.exists():
                poses = PolicyRollouts.load(POLICIES_REAL / f"{name}.safetensors").poses[replayed]
                replay_in_model(pixels, [starts[row] for row in replayed], poses, settings.seeds[0], judge).save(replay)
