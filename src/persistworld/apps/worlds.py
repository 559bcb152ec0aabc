"""Opens the models and starts for the tools replay, drive and policy."""

from collections.abc import Sequence
from pathlib import Path

import torch

from persistworld.config.models import SHOWN
from persistworld.config.params import Params
from persistworld.data.formats import open_episodes
from persistworld.policies.grasp_reader import GraspReader, load_grasp_reader
from persistworld.robot.kinematics import Tool
from persistworld.rollouts.inhabited import Embodiment, Inhabited
from persistworld.rollouts.making import load_parts
from persistworld.rollouts.pixels import PixelRollout
from persistworld.rollouts.rollout import Rollout
from persistworld.rollouts.start_frames import EpisodeStarts
from persistworld.runtime.errors import UserError
from persistworld.runtime.workspace import BASE, CHECKPOINTS
from persistworld.simulator.environment import SimulatedStarts
from persistworld.world_model.autoencoder import Autoencoder
from persistworld.world_model.model import WorldModel

NO_READER = "none"
GRASP_READER = Path("assets/tabletop_grasp_reader")
SIMULATOR = "simulator"  # in place of a folder of episodes
SMALL = 20_000_000  # parameters: threads would wait for each other, at batch 1, longer than they work (much longer on a busy machine)

Parts = tuple[WorldModel, Autoencoder]


def open_models(names: Sequence[str] | None, params: Params) -> dict[str, Parts]:
    """World models with their autoencoders, by name. names: names in checkpoints/, or folders; None: base and post_trained, if they exist.

    Before the workflow has run, the default is the base checkpoint in the parameters, if that is a folder. Raises UserError if a model is
    missing, or if the models have different views.
    """
    given = list(names or [name for name in SHOWN if (CHECKPOINTS / name).is_dir()])
    location = Path(params.base_checkpoint.location)
    folders = {Path(name).name: _folder(name) for name in given} or ({"base": location} if location.is_dir() else {})
    if not folders:
        raise UserError("checkpoints: no models there; run the workflow, or name a folder with --models, such as assets/tabletop_base")
    parts = {name: load_parts(folder, base_folder(params)) for name, folder in folders.items()}
    if all(sum(weight.numel() for weight in model.parameters()) < SMALL for model, _ in parts.values()):
        torch.set_num_threads(1)
    for name, (model, _) in parts.items():
        if model.views != params.episodes.views:
            seen, wanted = ", ".join(model.views), ", ".join(params.episodes.views)
            raise UserError(f"{folders[name]}: sees the views {seen}, but episodes.views are {wanted}; choose models of the same views")
    return parts


def base_folder(params: Params) -> Path:
    """The base checkpoint's folder: in checkpoints/, or, before the workflow has run, the folder in the parameters."""
    return BASE if BASE.is_dir() else Path(params.base_checkpoint.location)


def _folder(name: str) -> Path:
    known = CHECKPOINTS / name
    return known if known.is_dir() else Path(name)


def open_starts(where: str | None, params: Params) -> EpisodeStarts | SimulatedStarts:
    """Starts in a folder of episodes, or in simulated scenes if `where` is "simulator". None: the workflow's episodes, or the simulator if
    there are no episodes yet and the parameters simulate them."""
    if where is None:
        simulated = params.episodes.source == "simulate" and not Path(params.episodes.path).is_dir()
        where = SIMULATOR if simulated else params.episodes.path
    if where == SIMULATOR:
        return SimulatedStarts(params.episodes, params.seed)
    return EpisodeStarts(open_episodes(where), params.episodes)


def grasp_reader_for(where: str | None, params: Params) -> GraspReader | None:
    """The grasp reader in the folder `where`, or no reader for "none". None: the shipped one, if the starts are on the tabletop."""
    if where == NO_READER:
        return None
    shipped = GRASP_READER if params.episodes.source == "simulate" and GRASP_READER.is_dir() else None
    folder = Path(where) if where else shipped
    if folder is None:
        return None
    reader, settings = load_grasp_reader(folder), params.episodes
    fits = reader.network.size == (len(settings.views), settings.height, settings.width)
    if not fits and where:
        raise UserError(f"--grasp {where}: trained on views of {reader.network.size}, not those of episodes.views, height and width")
    return reader if fits else None


def tool_of_starts(starts: EpisodeStarts | SimulatedStarts) -> Tool | None:
    """The point of a Panda that the starts' poses describe, or None."""
    return starts.tool if isinstance(starts, SimulatedStarts) else starts.tool()


def inhabited(parts: Parts, params: Params, robot: Embodiment) -> Inhabited:
    """A new rollout in a model that other rollouts may share."""
    model, autoencoder = parts
    return Inhabited(PixelRollout(Rollout(model, params.rollout), autoencoder), robot)
