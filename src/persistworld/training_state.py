"""The state of a training run on disk: whole or not there, and never resumed under other parameters."""

from pathlib import Path
from typing import Any

import torch

from persistworld.errors import UserError
from persistworld.files import atomic_path


def save_state(folder: Path, step: int, digest: str, state: dict[str, Any]) -> None:
    """Write the state after `step` steps, then drop the one before it."""
    path = folder / f"state-{step:08d}.pt"
    with atomic_path(path) as part:
        torch.save({"digest": digest, "step": step, **state}, part)
    for old in folder.glob("state-*.pt"):
        if old != path:
            old.unlink()


def load_state(folder: Path, digest: str) -> dict[str, Any] | None:
    """The newest state in `folder`, on the CPU, or None. Raises UserError when it was made under other parameters."""
    paths = sorted(folder.glob("state-*.pt"))
    if not paths:
        return None
    state = torch.load(paths[-1], map_location="cpu", weights_only=True)
    if state["digest"] != digest:
        raise UserError(
            f"{paths[-1]}: made under other parameters; delete {folder} to start anew, or restore the parameters to resume"
        )
    return state
