"""What every training run keeps: averaged weights, a log, and a state on disk from which it resumes to the same bytes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from persistworld.runtime.distributed import processes
from persistworld.training.log import TrainingLog
from persistworld.training.optimizers import MatrixOptimizer, ema_update
from persistworld.training.state import load_state, save_state

Weights = Mapping[str, Tensor]


class TrainingRun:
    """A run of `steps` steps in `folder`. A trainer's loop goes from `start` to `steps` and ends each step with `end_step`."""

    def __init__(
        self,
        folder: Path,
        digest: str,
        steps: int,
        save_every: int,
        optimizer: MatrixOptimizer,
        weights: Weights,
        averaged: bool,
        copies: Mapping[str, Weights] | None = None,
    ) -> None:
        """Restores the newest state in `folder`, if there is one, into the tensors given; all processes must call this.

        weights: what is trained, by name; averaged: whether their moving average is kept and is the result; copies: other sets of tensors
        that belong to the state, by name. digest: what the run is made from. Raises UserError where a state was made from something else.
        """
        self.folder, self.digest, self.steps, self.save_every = folder, digest, steps, save_every
        self.optimizer, self.writes = optimizer, processes().is_main_process
        self.sets: dict[str, Weights] = {"weights": {name: tensor.detach() for name, tensor in weights.items()}, **(copies or {})}
        if averaged:
            self.sets["average"] = {name: tensor.clone() for name, tensor in self.sets["weights"].items()}
        state = load_state(folder, digest) or {"step": 0}
        self.start = state["step"]
        if self.start > 0:
            for name, tensors in self.sets.items():
                saved = state.pop(name)
                for key, tensor in tensors.items():
                    tensor.copy_(saved[key])
            optimizer.load_state_dict(state.pop("optimizer"))
        self.restored: dict[str, Any] = state  # what `end_step` saved beside weights and optimizer
        self.log = TrainingLog(folder, self.start, self.writes)

    def update_average(self, decay: float) -> None:
        """average <- decay * average + (1 - decay) * weights, where there is an average."""
        if "average" in self.sets:
            ema_update(self.sets["average"].values(), self.sets["weights"].values(), decay)

    def end_step(self, row: dict[str, float], others: Callable[[], dict[str, Any]] = dict) -> None:
        """Log `row`, whose "step" counts from 0, and save the state when it is due.

        others: gives what belongs to the state beside the sets of weights. Every process calls it; the first alone writes.
        """
        self.log.append(row)
        done = int(row["step"]) + 1
        if done % self.save_every == 0 or done == self.steps:
            state = {**self.sets, "optimizer": self.optimizer.state_dict(), **others()}
            if self.writes:
                save_state(self.folder, done, self.digest, state)

    def result(self) -> Weights:
        """Close the log; the averaged weights, or the last ones of a run without an average."""
        self.log.close()
        return self.sets.get("average", self.sets["weights"])
