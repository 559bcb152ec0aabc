"""Common parts of every training run: averaged weights, a log, and a state on disk. A resumed run ends with the same bytes."""

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
    """A run of `steps` steps in `folder`. A trainer loops from `start` to `steps` and ends each step with `end_step`."""

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
        """Restore the newest state in `folder`, if there is one, into the given tensors. All processes must call this.

        weights: the trained tensors, by name; averaged: whether to keep and return their moving average; copies: other sets
        of tensors that belong to the state, by name. digest: identifies the inputs of the run. Raises UserError if a state has another one.
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
        self.restored: dict[str, Any] = state  # the `others` that `end_step` saved
        self.log = TrainingLog(folder, self.start, self.writes)

    def update_average(self, decay: float) -> None:
        """average <- decay * average + (1 - decay) * weights, if an average is kept."""
        if "average" in self.sets:
            ema_update(self.sets["average"].values(), self.sets["weights"].values(), decay)

    def end_step(self, row: dict[str, float], others: Callable[[], dict[str, Any]] = dict) -> None:
        """Log `row`, whose "step" counts from 0, and save the state when it is due.

        others: returns the rest of the state (without weights and optimizer). Every process calls it; only the first process writes.
        """
        self.log.append(row)
        done = int(row["step"]) + 1
        if done % self.save_every == 0 or done == self.steps:
            state = {**self.sets, "optimizer": self.optimizer.state_dict(), **others()}
            if self.writes:
                save_state(self.folder, done, self.digest, state)

    def result(self) -> Weights:
        """Close the log. Returns the averaged weights, or the last weights if no average is kept."""
        self.log.close()
        return self.sets.get("average", self.sets["weights"])
