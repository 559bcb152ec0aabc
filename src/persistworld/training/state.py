"""Saves and loads the state of a training run.

A state is written atomically. It is refused if parameters, code or data differ.
"""

from pathlib import Path
from typing import Any

import torch

from persistworld.runtime.distributed import gathered
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path


def save_state(folder: Path, step: int, digest: str, state: dict[str, Any]) -> None:
    """Write the state after `step` steps, then delete the previous state."""
    path = folder / f"state-{step:08d}.pt"
    # Open the file in Python: if torch opens it, the error for a full disk does not name the cause.
    with atomic_path(path) as part, part.open("wb") as file:
        torch.save({"digest": digest, "step": step, **state}, file)
    drop_states(folder, but=path)


def drop_states(folder: Path, but: Path | None = None) -> None:
    """Delete all states in `folder`, except `but`."""
    for path in folder.glob("state-*.pt"):
        if path != but:
            path.unlink()


def last_step(folder: Path) -> int:
    """The step of the newest state in `folder`; 0 without a state."""
    return max((int(path.stem.removeprefix("state-")) for path in folder.glob("state-*.pt")), default=0)


def load_state(folder: Path, digest: str) -> dict[str, Any] | None:
    """The newest state in `folder`, on the CPU, or None. All processes must call this.

    Raises UserError if its digest differs from `digest`, or if the processes would not continue at the same step of the same run.
    """
    paths = sorted(folder.glob("state-*.pt"))
    state = torch.load(paths[-1], map_location="cpu", weights_only=True) if paths else None
    _check_alike(folder, digest, state)
    if state is not None and state["digest"] != digest:
        raise UserError(
            f"{paths[-1]}: made with other parameters, code, base checkpoint or data; delete {folder} to start again, "
            "or restore them to resume"
        )
    return state


def _check_alike(folder: Path, digest: str, state: dict[str, Any] | None) -> None:
    """Raise UserError in all processes if their digests or states differ, e.g. because each node has its own disk."""
    runs = gathered([digest])
    if len(set(runs)) > 1:
        other = next(rank for rank, run in enumerate(runs) if run != runs[0])
        raise UserError(
            f"{folder}: process {other} is about to train something else than process 0; give all nodes the same params.yaml, "
            "checkpoints/base and data/"
        )
    found = gathered([None if state is None else (state["step"], state["digest"])])
    if len(set(found)) > 1:
        steps = ", ".join("none" if each is None else str(each[0]) for each in found)
        raise UserError(
            f"{folder}: processes find different states here (by process, of step {steps}); put runs/ on a disk that all nodes "
            "share, or copy the newest state to each of them"
        )
