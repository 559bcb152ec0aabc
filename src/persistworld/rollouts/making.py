"""Makes environments from a checkpoint and a data set: `persistworld.make_env`."""

from pathlib import Path
from typing import Literal

from persistworld.checkpoints.adapters import load_world_model
from persistworld.config.data import EpisodesConfig
from persistworld.config.params import Params, load_params
from persistworld.data.formats import open_episodes
from persistworld.robot.actions import Actions, Kind
from persistworld.robot.control import CONTROLLERS, Controller
from persistworld.robot.kinematics import Tool
from persistworld.rollouts.environment import World, WorldModelEnv, WorldModelVectorEnv
from persistworld.rollouts.inhabited import Embodiment, GraspReader
from persistworld.rollouts.pixels import PixelRollout
from persistworld.rollouts.rollout import Rollout
from persistworld.rollouts.start_frames import EpisodeStarts, StartSource, drawn_from
from persistworld.runtime.distributed import device
from persistworld.runtime.errors import UserError
from persistworld.world_model.autoencoder import WEIGHTS, Autoencoder, load_autoencoder
from persistworld.world_model.model import WorldModel


def make_env(
    checkpoint: str | Path,
    *,
    starts: StartSource | str | Path | None = None,
    params: Params | str | Path = "params.yaml",
    num_envs: int | None = None,
    action: Kind = "absolute",
    rate: float = 15.0,
    control: str | Controller = "exact",
    grasp: GraspReader | None = None,
    tool: Tool | Literal["auto"] | None = "auto",
    chunks: int | None = None,
    base: str | Path | None = None,
    render_mode: str | None = None,
) -> WorldModelEnv | WorldModelVectorEnv:
    """A world model as an environment: `WorldModelEnv`, or with `num_envs` a vectorised `WorldModelVectorEnv`.

    checkpoint: folder of a base or post-trained checkpoint; base: folder of a post-trained checkpoint's base (default: `base` beside it).
    starts: a folder of episodes in any supported layout (default: episodes.path of the parameters, where the workflow puts them),
    or a function such as `simulator.environment.simulated_starts`. `reset(options={"start": ...})` takes a start frame of your own.
    params: frame size, frame rate, views and sampler. action: how an action is interpreted (`robot.actions.Actions`); rate: the rate of
    joint velocities in Hz. control: exact, tabletop, droid, or a Controller; it determines which poses are reached for which commands.
    grasp: detects whether the fingers close on an object. tool: the point of a Panda that the poses describe; "auto" infers it from the
    data, None means another robot. chunks: number of chunks after which an episode is truncated (default: rollout.chunks).

    Raises UserError if the arguments do not fit together.
    """
    params = params if isinstance(params, Params) else load_params(params)
    model, autoencoder = load_parts(checkpoint, base)
    if starts is None or isinstance(starts, str | Path):
        episodes = EpisodeStarts(open_episodes(starts or params.episodes.path), params.episodes)
        tool = episodes.tool() if tool == "auto" else tool
        starts = drawn_from(episodes)
    tool = getattr(starts, "tool", None) if tool == "auto" else tool
    robot = Embodiment(actions_of(model, params.episodes, action, rate), tool, controller(control), grasp)
    size, limit = (params.episodes.height, params.episodes.width), chunks or params.rollout.chunks
    world = World(PixelRollout(Rollout(model, params.rollout), autoencoder), robot, starts, size, limit)
    return WorldModelEnv(world, render_mode) if num_envs is None else WorldModelVectorEnv(world, num_envs)


def load_parts(checkpoint: str | Path, base: str | Path | None = None) -> tuple[WorldModel, Autoencoder]:
    """A checkpoint's world model and its autoencoder (from its folder or its base's), on the device of this process."""
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such checkpoint folder; run the workflow, or name assets/tabletop_base")
    other = Path(base) if base else folder.parent / "base"
    return load_world_model(folder, other).to(device()), load_autoencoder(folder if (folder / WEIGHTS).exists() else other).to(device())


def actions_of(model: WorldModel, settings: EpisodesConfig, kind: Kind, rate: float = 15.0) -> Actions:
    """The action format of a model's environment. A model whose poses do not have 7 numbers takes only absolute poses."""
    numbers = len(model.statistics.low) - (3 if model.statistics.rotation == "continuous" else 0)
    return Actions(kind, model.config.future - 1, settings.fps, rate, numbers)


def controller(control: str | Controller) -> Controller:
    """The controller with the given name. A Controller is returned unchanged."""
    if not isinstance(control, str):
        return control
    if control not in CONTROLLERS:
        raise UserError(f"control = {control}: no such controller; choose from {', '.join(CONTROLLERS)}")
    return CONTROLLERS[control]
