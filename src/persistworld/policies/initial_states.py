"""The initial states of the simulated tasks: scenes of one seed, the same ones for every policy and world."""

import itertools
from dataclasses import dataclass

import numpy as np

from persistworld.config.data import EpisodesConfig
from persistworld.config.policies import PoliciesConfig
from persistworld.runtime.errors import UserError
from persistworld.simulator.tasks import sample_task

GOALS = {"put_in_bowl": "bowl", "put_on_tray": "tray", "stack": "block"}  # task -> the goal's shape in its scenes


@dataclass(frozen=True)
class InitialState:
    """scene: the number of a scene of the seed policies.scenes whose instruction belongs to `task`."""

    task: str
    scene: int


def initial_states(settings: PoliciesConfig, episodes: EpisodesConfig) -> list[InitialState]:
    """The first `settings.states` scenes of each task, task by task. Raises UserError for a task that the simulator does not have."""
    if strange := [task for task in settings.tasks if task not in GOALS]:
        raise UserError(
            f"policies.tasks.{strange[0]}: the simulator has {', '.join(GOALS)}; for other tasks name people's labels in policies.labels"
        )
    found: dict[str, list[int]] = {task: [] for task in settings.tasks}
    for scene in itertools.count():
        task = sample_task(np.random.default_rng([settings.scenes, scene]), episodes.colours, episodes.outcomes)
        for name, scenes in found.items():
            if task.intent != "push" and task.goal.shape == GOALS[name] and len(scenes) < settings.states:
                scenes.append(scene)
        if all(len(scenes) == settings.states for scenes in found.values()):
            return [InitialState(name, scene) for name, scenes in found.items() for scene in scenes]
