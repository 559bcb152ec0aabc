"""Typed parameters: one frozen dataclass per section of `params.yaml`.

Defaults are the paper's values (arXiv 2603.25685, section 4 and appendices B, E). Where the paper gives none, they are the values of the
systems it builds on (Ctrl-World, DiffusionNFT). Unknown keys, wrong types and impossible values are refused. For an unknown key, the error
names the most similar key.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from persistworld.config.ablations import NAME, AblationsConfig, SpeedConfig
from persistworld.config.checks import require
from persistworld.config.derived import Derived, add_ablations, add_speed, overlaid, training_digest
from persistworld.config.models import FIXED, Models, variant
from persistworld.config.post_training import PostTrainingConfig
from persistworld.config.reading import build_section, digest, nearest, read_yaml
from persistworld.config.run import RunParams
from persistworld.config.training import BaseTrainingConfig, ControlConfig, OwnHistoryConfig
from persistworld.config.variants import VariantConfig
from persistworld.runtime.errors import UserError

# Names that other stages use for files in results/metrics/, checkpoints/ and runs/, so variants cannot have them.
TAKEN_NAMES = (
    "table_1", "table_2", "paired", "paired_details", "preference", "masks", "fetched", "episodes", "latents", "base_checkpoint",
    "base_training", "rollouts", "speed", "policies", "simulator", "real", "fidelity", "pose_reader",
)  # fmt: skip


@dataclass(frozen=True)
class Params(RunParams):
    """All parameters in `params.yaml`: one run, and the runs that differ from it."""

    ablations: AblationsConfig = field(default_factory=AblationsConfig)
    speed: SpeedConfig = field(default_factory=SpeedConfig)
    variants: dict[str, VariantConfig | None] = field(default_factory=dict)  # name -> changes from post_trained; each adds a model

    def check(self) -> None:
        """Raise UserError at the first value that is impossible, alone or in combination, in this run or a variant's."""
        self.check_run()
        fixed = [model.name for model in FIXED]
        for name in self.variants:
            require(name not in fixed, "variants", name, "is the name of a model that always exists: choose another")
            require(name not in TAKEN_NAMES, "variants", name, "is the name of files that other stages write: choose another")
            require(name not in self.ablations.tables, "variants", name, "is the name of an axis of the ablations: choose another")
            lower = bool(NAME.fullmatch(name))
            require(lower, "variants", name, "becomes part of file names: use lower-case letters, digits and _, starting with a letter")
            self.for_run(name)
        models = self.models
        taken = self.all_models.bases
        for name in self.ablations.tables:
            require(name not in TAKEN_NAMES, "ablations.axes", name, "is the name of files that other stages write: choose another")
        for folder in taken:
            require(folder not in models, "variants", folder, "is the name of another variant's base checkpoint: choose another")
        for name in self.evaluation.models:
            require(name in models, "evaluation.models", name, f"no such model or variant; {nearest(name, models.names)}")
        if self.policies.labels is None:
            for name in self.policies.models:
                known = models.rolled_out(models.names)
                require(name in known, "policies.models", name, f"no model with a checkpoint; {nearest(name, known)}")

    def with_sections(self, **sections: Any) -> "Params":
        """The parameters of one other run, so without variants and derived runs."""
        return dataclasses.replace(self, variants={}, ablations=AblationsConfig(), speed=SpeedConfig(), **sections)

    def for_run(self, run: str) -> "Params":
        """The parameters for training and rolling out model `run`: these, with a variant's changes applied if `run` is a variant.

        Also of derived runs (config/derived.py). Raises UserError if `run` is not a model, and if a variant's change is impossible (naming
        `variants.NAME.section.key`).
        """
        if run in [model.name for model in FIXED]:
            return self
        if run not in self.variants:
            if "-" in run and run in self.derived.params:  # only derived names have a hyphen
                return self.derived.params[run]
            names = (model.name for model in FIXED)
            raise UserError(f"variants.{run}: no such model; {nearest(run, [*names, *self.variants])}")
        given, where = self.variants[run] or VariantConfig(), f"variants.{run}"
        changed = overlaid(self, given, where)
        chunks = changed.rollout.chunks
        require(chunks == self.rollout.chunks, f"{where}.rollout.chunks", chunks, "all models' rollouts are equally long: remove this key")
        return changed

    @cached_property
    def models(self) -> Models:
        """The fixed models and the variants. Variants whose training is the same share a checkpoint. Bases are shared in the same way."""
        return self._registries[0]

    @cached_property
    def derived(self) -> "Derived[Params]":
        """The runs of the ablations and of the table of speed."""
        _, checkpoints, bases = self._registries
        found: Derived[Params] = Derived()
        add_speed(found, self.speed, self.models, self.for_run)
        add_ablations(found, self.ablations, self, dict(checkpoints), dict(bases))
        return found

    @cached_property
    def all_models(self) -> Models:
        """All that can be trained, rolled out and scored: `models` and the derived ones."""
        return Models((*self.models.variants, *self.derived.models.values()))

    @cached_property
    def _registries(self) -> tuple[Models, dict[str, str], dict[str, str]]:
        """The file's own models; training digest -> checkpoint; digest of base_checkpoint -> folder."""
        checkpoints, bases, found = {training_digest(self): "post_trained"}, {digest(self.base_checkpoint): "base"}, []
        for name, given in self.variants.items():
            run = self.for_run(name)
            checkpoint = checkpoints.setdefault(training_digest(run), name)
            base = bases.setdefault(digest(run.base_checkpoint), f"{name}_base")
            found.append(variant(name, given.label if given else "", checkpoint, base))
        return Models(tuple(found)), checkpoints, bases


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a parameter file. Raises UserError, which names the key, if anything is wrong."""
    raw = read_yaml(path)
    try:
        params = build_section(Params, raw, "")
        params.check()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return params


def control_sections(whole: Params) -> tuple[PostTrainingConfig, BaseTrainingConfig, ControlConfig]:
    """The sections that determine the control `teacher_forced`."""
    return whole.post_training, whole.base_training, whole.control


def own_history_sections(whole: Params) -> tuple[PostTrainingConfig, OwnHistoryConfig]:
    """The sections that determine the control `own_history`."""
    return whole.post_training, whole.own_history
