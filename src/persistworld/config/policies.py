"""Parameters of the policy evaluation (paper, appendix C): tasks, policies, world models, and who judges."""

import re
from dataclasses import dataclass, field

from persistworld.config.checks import at_least, distinct, require
from persistworld.config.models import SHOWN
from persistworld.config.reading import nearest

NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class TaskConfig:
    """A row of Table 12. Reaching each of `stages` in order gives 1 / len(stages) of the progress."""

    label: str
    skill: str
    stages: tuple[str, ...]
    picture: str = ""  # an image of an initial state for Figure 7; not needed where the states are simulated


def _paper_tasks() -> dict[str, TaskConfig]:
    """The three tasks of the paper."""
    put = ("reach", "grasp", "lift", "close", "inside")
    return {
        "put_banana_in_box": TaskConfig("Put banana in box", "Put", put),
        "put_green_block_in_bowl": TaskConfig("Put green block in bowl", "Put", put),
        "rotate_marker": TaskConfig("Rotate marker", "Rotate", ("reach", "grasp", "rotate_45")),
    }


@dataclass(frozen=True)
class PoliciesConfig:
    """The policy evaluation. With `labels`, people have judged rollouts that were made elsewhere, and this run rolls out nothing."""

    tasks: dict[str, TaskConfig] = field(default_factory=_paper_tasks)
    names: tuple[str, ...] = ("pi0", "pi0_fast", "groot_n1_5")  # with `labels`: names in that file
    models: tuple[str, ...] = SHOWN
    labels: str | None = "policies.csv"  # a CSV of people's labels (docs/policies.md); null: the judge in `judge` scores simulated tasks
    states: int = 8  # initial states of each task
    scenes: int = 1000  # seed of the simulated scenes; policies and judge were trained on other seeds
    seeds: tuple[int, ...] = (0, 1)  # of the sampler's noise
    replay_states: int = 3  # states per task for which the poses reached in reality are also replayed in the world models
    chunks: int = 10
    eyes: str = "assets/tabletop_policies"  # folder of the networks with which the shipped policies see
    judge: str = "assets/tabletop_judge"
    grasp: str = "assets/tabletop_grasp_reader"

    def check(self) -> None:
        at_least(1, self, "policies", "states", "chunks")
        at_least(0, self, "policies", "scenes", "replay_states")
        least = self.replay_states <= self.states
        require(least, "policies.replay_states", self.replay_states, f"at most policies.states, {self.states}")
        for name in ("names", "models", "seeds"):
            require(len(getattr(self, name)) >= 1, f"policies.{name}", getattr(self, name), "name at least one")
        distinct(self, "policies", "names", "models", "seeds")
        require(len(self.tasks) >= 1, "policies.tasks", self.tasks, "name at least one")
        for name, task in self.tasks.items():
            lower = bool(NAME.fullmatch(name))
            require(lower, "policies.tasks", name, "use lower-case letters, digits and _, starting with a letter")
            require(len(task.stages) >= 1, f"policies.tasks.{name}.stages", task.stages, "name at least one")
            distinct(task, f"policies.tasks.{name}", "stages")

    def require_rollouts(self, judged: tuple[str, ...]) -> None:
        """Raise UserError unless policies are rolled out here, in tasks whose stages are those that the judge knows (`judged`)."""
        require(self.labels is None, "policies.labels", self.labels, "its rollouts were made elsewhere: set null to make some here")
        for name, task in self.tasks.items():
            require(task.stages == judged, f"policies.tasks.{name}.stages", task.stages, f"the judge knows {', '.join(judged)}")

    def require_model(self, name: str) -> None:
        """Raise UserError unless `name` is one of `models`."""
        require(name in self.models, "--model", name, f"no model of policies.models; {nearest(name, self.models)}")
