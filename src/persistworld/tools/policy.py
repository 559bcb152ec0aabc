"""Run a policy (built-in, your own, or on an openpi or GR00T server) in the world model and, with --simulator, in the simulator.

    persistworld policy wander
    persistworld policy my_policy:Mine --simulator
    persistworld policy openpi --address gpu-box:8000 --episodes ../droid_1.0.1 --control droid
"""

import argparse
from pathlib import Path

import gymnasium
import numpy as np

from persistworld.apps.recording import Recording, save_episode, save_film
from persistworld.apps.worlds import SIMULATOR, grasp_reader_for, open_models, open_starts, tool_of_starts
from persistworld.config.checks import require
from persistworld.config.params import Params
from persistworld.config.reading import build_section, read_yaml
from persistworld.policies.policy import Policy, run_policy
from persistworld.policies.remote import RemoteConfig
from persistworld.policies.shipped import find_policy
from persistworld.robot.control import CONTROLLERS
from persistworld.robot.spaces import Observation
from persistworld.rollouts.environment import World, WorldModelEnv
from persistworld.rollouts.inhabited import Embodiment
from persistworld.rollouts.making import actions_of, controller
from persistworld.rollouts.pixels import PixelRollout
from persistworld.rollouts.rollout import Rollout
from persistworld.rollouts.start_frames import drawn_from
from persistworld.runtime.progress import track
from persistworld.simulator.environment import SimulatedStarts, TabletopEnv

OPTIONS = {
    "policy": {"help": "still, wander, a shipped one (docs/policies.md), openpi, groot, or MODULE:NAME for one of your own"},
    "--address": {"metavar": "HOST[:PORT]", "default": "localhost", "help": "of the policy's server (default: %(default)s)"},
    "--config": {"metavar": "FILE", "help": "YAML: which views and sizes the server gets, its rate (default: DROID's)"},
    "--models": {
        "nargs": "+",
        "metavar": "MODEL",
        "help": "names in checkpoints/, or folders (default: base and post_trained, those that are there)",
    },
    "--episodes": {"metavar": "FOLDER", "help": "data set to start in, or 'simulator' (default: the workflow's episodes)"},
    "--episode": {"type": "int", "nargs": "+", "metavar": "N", "help": "where to start (default: the first)"},
    "--simulator": {"action": "store_true", "help": "run the policy in the simulator, too (starts are its scenes)"},
    "--chunks": {"type": "int", "default": 15, "metavar": "N", "help": "of frames, a run (default: %(default)s)"},
    "--control": {"default": "tabletop", "help": "what is reached of what is commanded: exact, tabletop, droid (default: %(default)s)"},
    "--grasp": {"metavar": "FOLDER", "help": "grasp reader: do closing fingers meet something? or 'none' (default: the tabletop's own)"},
    "--noise": {"type": "int", "default": 0, "metavar": "SEED", "help": "of the sampler's noise, and the policy's (default: %(default)s)"},
    "--lerobot": {"action": "store_true", "help": "keep the runs as LeRobot episodes, too"},
    "--output": {"default": "policies", "metavar": "FOLDER", "help": "for films (default: %(default)s)"},
}
CLIENTS = ("openpi", "groot")


def main(params: Params, args: argparse.Namespace) -> None:
    """args: policy, address, config, models, episodes, episode, simulator, chunks, control, grasp, noise, lerobot, output."""
    require(args.control in CONTROLLERS, "--control", args.control, f"choose from {', '.join(CONTROLLERS)}")
    require(args.chunks > 0, "--chunks", args.chunks, "run at least one")
    models = open_models(args.models, params)
    starts = open_starts(SIMULATOR if args.simulator else args.episodes, params)
    policy = _client(args, params) if args.policy in CLIENTS else find_policy(args.policy)
    source = starts if isinstance(starts, SimulatedStarts) else drawn_from(starts)
    grasp = grasp_reader_for(args.grasp, params)
    tool, size = tool_of_starts(starts), (params.episodes.height, params.episodes.width)
    worlds: dict[str, gymnasium.Env] = {}
    if args.simulator:
        worlds["simulator"] = TabletopEnv(params.episodes, scenes=params.seed, action=policy.kind, rate=policy.rate, chunks=args.chunks)
    for name, (model, autoencoder) in models.items():
        robot = Embodiment(actions_of(model, params.episodes, policy.kind, policy.rate), tool, controller(args.control), grasp)
        pixels = PixelRollout(Rollout(model, params.rollout), autoencoder)
        worlds[name] = WorldModelEnv(World(pixels, robot, source, size, args.chunks))
    output, episodes = Path(args.output), args.episode or starts.indices()[:1]
    for episode in track(episodes, len(episodes), args.policy):
        recordings = {name: _run(env, name, policy, args, episode) for name, env in worlds.items()}
        words = starts.start(episode).instruction
        whole = Recording({name: each.frames[name] for name, each in recordings.items()})
        save_film(output / f"{_plain(args.policy)}-{episode:06d}.mp4", whole, params.episodes.fps, {}, words)
        if args.lerobot:
            for name, each in recordings.items():
                save_episode(output / f"lerobot_{name}", each, name, params.episodes.views, params.episodes.fps, words)
    print(f"{len(episodes)} runs in {', '.join(worlds)}: {output}")


def _client(args: argparse.Namespace, params: Params) -> Policy:
    raw = {} if args.config is None else read_yaml(args.config)
    config = build_section(RemoteConfig, {"fps": params.episodes.fps, "frames": params.world_model.future - 1} | raw, "config")
    if args.policy == "openpi":
        from persistworld.policies.openpi import OpenPi  # imported here: its packages are an optional extra

        return OpenPi(args.address, config)
    from persistworld.policies.groot import Groot

    return Groot(args.address, config)


def _run(env: gymnasium.Env, name: str, policy: Policy, args: argparse.Namespace, episode: int) -> Recording:
    """Run the policy once and return the recording."""
    options = {"episode": episode} | ({} if name == "simulator" else {"noise": args.noise})
    kept = Recording({name: []}, {name: []}, {name: []})
    for observation, info in run_policy(env, policy, args.chunks, args.noise, options):
        kept.frames[name] += list(info["frames"]) if info else [_stacked(observation)]
        kept.poses[name] += list(info["poses"]) if info else [observation["pose"]]
        kept.joints[name] += list(info["joints"]) if "joints" in info else [observation.get("joints")] * max(1, len(info.get("poses", ())))
        kept.commands += list(info["commands"]) if info else []
    return kept


def _stacked(observation: Observation) -> np.ndarray:
    return np.stack(list(observation["views"].values()))


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)
