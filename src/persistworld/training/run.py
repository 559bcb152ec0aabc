"""Common to post-training and its control as workflow runs: the digest of their inputs, and the publication of their log."""

import shutil
from pathlib import Path

from persistworld.checkpoints.layout import WEIGHTS
from persistworld.config.params import Params
from persistworld.config.reading import digest
from persistworld.evaluation.perceptual import TABLETOP_FILE
from persistworld.runtime.files import atomic_path, sha256
from persistworld.runtime.provenance import code_digest
from persistworld.runtime.workspace import BASE, MANIFEST, TRAINING
from persistworld.training.log import CSV
from persistworld.training.state import drop_states
from persistworld.world_model.autoencoder import WEIGHTS as AUTOENCODER


def provenance(params: Params, stage: str, *sections: object, base: Path = BASE) -> str:
    """A one-line digest of a run's inputs. A state with another digest is never resumed.

    stage: the module that runs, such as "stages.post_training"; sections: the parameters that the run reads, without those of its data.
    The latents are determined by the episodes (the manifest), the sections of both, and the autoencoder.
    """
    sections = (*sections, params.episodes, params.latents)
    files = [file for file in (base / WEIGHTS, BASE / AUTOENCODER, BASE / TABLETOP_FILE, MANIFEST) if file.exists()]
    history = ",".join(map(str, params.rollout.history_index))  # of the rollout section, only what training uses; batching does not matter
    return "-".join([*map(digest, sections), history, str(params.seed), code_digest(stage), *(sha256(file)[:12] for file in files)])


def publish_log(run_folder: Path, run: str) -> None:
    """Copy the run's log to results/ and delete its states once the checkpoint is written. Its TensorBoard events stay."""
    with atomic_path(TRAINING / f"{run}.csv") as part:
        shutil.copyfile(run_folder / CSV, part)
    drop_states(run_folder)
    (run_folder / CSV).unlink()
