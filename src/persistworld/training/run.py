"""What post-training and its control have in common as runs of the workflow: where they begin, what they are made from, what they leave."""

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
    """What a run is made from, in one line: a state made from anything else is never resumed.

    `stage` is the module that runs, such as "stages.post_training"; `sections` are those that the run reads beside the ones that make
    its data. Latents follow from episodes (the manifest), their sections and the autoencoder.
    """
    sections = (*sections, params.episodes, params.latents)
    files = [file for file in (base / WEIGHTS, BASE / AUTOENCODER, BASE / TABLETOP_FILE, MANIFEST) if file.exists()]
    history = ",".join(map(str, params.rollout.history_index))  # of rollouts, what the trained model is used with; not how they are batched
    return "-".join([*map(digest, sections), history, str(params.seed), code_digest(stage), *(sha256(file)[:12] for file in files)])


def publish_log(run_folder: Path, run: str) -> None:
    """Copy the run's log to results/ and drop its states: the checkpoint is out. Its TensorBoard events stay."""
    with atomic_path(TRAINING / f"{run}.csv") as part:
        shutil.copyfile(run_folder / CSV, part)
    drop_states(run_folder)
    (run_folder / CSV).unlink()
