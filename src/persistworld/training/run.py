"""Common to trainings as workflow runs: the digest of their inputs, the folder of their state, and the publication of their log."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from persistworld.checkpoints.layout import WEIGHTS
from persistworld.config.params import Params
from persistworld.config.reading import digest
from persistworld.evaluation.perceptual import TABLETOP_FILE
from persistworld.runtime.distributed import processes
from persistworld.runtime.files import atomic_path, sha256
from persistworld.runtime.provenance import code_digest
from persistworld.runtime.workspace import BASE, MANIFEST, TRAINING
from persistworld.training.log import CSV
from persistworld.training.state import drop_states, last_step
from persistworld.world_model.autoencoder import WEIGHTS as AUTOENCODER

OWN = "-steps"  # ends the name of the folder of a run of so many steps


def provenance(params: Params, stage: str, *sections: object, base: Path = BASE) -> str:
    """A one-line digest of a run's inputs. A state with another digest is never resumed.

    stage: the module that runs, such as "stages.post_training"; sections: the parameters that the run reads, without those of its data.
    The latents are determined by the episodes (the manifest), the sections of both, and the autoencoder.
    """
    sections = (*sections, params.episodes, params.latents)
    files = [file for file in (base / WEIGHTS, BASE / AUTOENCODER, BASE / TABLETOP_FILE, MANIFEST) if file.exists()]
    history = ",".join(map(str, params.rollout.history_index))  # of the rollout section, only what training uses; batching does not matter
    return "-".join([*map(digest, sections), history, str(params.seed), code_digest(stage), *(sha256(file)[:12] for file in files)])


def tied_by(schedules: Mapping[str, bool]) -> str | None:
    """The parameter that makes a run's schedule depend on its number of steps; None if there is none.

    schedules: parameter -> whether it makes the schedule depend on it.
    """
    return next((name for name, depends in schedules.items() if depends), None)


def state_folder(folder: Path, steps: int, tied: str | None) -> Path:
    """The folder of the state of a run of `steps` steps. `folder` is named by the run's parameters without their number of steps.

    tied: the parameter that makes the schedule depend on the number of steps (see `tied_by`). Without one, the state is in `folder` itself,
    so that a finished run goes on when `steps` is raised. Otherwise, or if that state is beyond `steps`, the run has a folder of its own
    below it. If another number of steps was run before, the first process prints whether the run goes on from it, or why not.
    """
    own, reached = folder / f"{steps}{OWN}", last_step(folder)
    if tied is None and reached <= steps:
        if 0 < reached < steps:
            _say(f"{folder}: goes on from step {reached} to {steps}")
        return folder
    others = sorted(int(path.name.removesuffix(OWN)) for path in folder.glob(f"*{OWN}") if path != own)
    if tied is None:
        _say(f"{folder}: begins at step 0, since its state is of step {reached}, beyond steps = {steps}")
    elif others and not last_step(own):
        run = ", ".join(map(str, others))
        _say(f"{own}: begins at step 0, not where the run of {run} steps ended: with {tied}, every step depends on the number of steps")
    return own


def _say(line: str) -> None:
    if processes().is_main_process:
        print(f"persistworld: {line}", file=sys.stderr, flush=True)


def publish_log(run_folder: Path, run: str, goes_on: bool) -> None:
    """Copy the run's log to results/ once the checkpoint is written. Its TensorBoard events stay.

    If the run can go on with more steps (`goes_on`), its state and log stay too; otherwise they are deleted.
    """
    with atomic_path(TRAINING / f"{run}.csv") as part:
        shutil.copyfile(run_folder / CSV, part)
    if not goes_on:
        drop_states(run_folder)
        (run_folder / CSV).unlink()
