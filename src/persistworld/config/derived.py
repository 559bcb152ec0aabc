"""Runs that the parameter file implies beyond its own models: the rows of the ablations, and other sampler steps.

A run is named by a digest of what determines it, not by its row. Rows that are equal after merging are one run, a renamed row is the same
run, and a changed row is another.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from persistworld.config.ablations import AblationsConfig, AxisConfig, SpeedConfig
from persistworld.config.checks import require
from persistworld.config.data import MasksConfig
from persistworld.config.models import Model, Models
from persistworld.config.reading import build_section, digest, merge, nearest
from persistworld.config.run import RunParams
from persistworld.config.variants import VariantConfig
from persistworld.runtime.errors import UserError

BASE_RUN = "ablation-base"  # the base model, evaluated as the rows are
BLUE = "#0072B2"
P = TypeVar("P", bound=RunParams)


@dataclass(frozen=True)
class Derived(Generic[P]):
    """All derived runs.

    models, params: by the run's name. axes: by name. rows: axis -> row -> the names of its runs, one per training seed.
    speed: (model, sampler steps) -> the name of the run. places: the first row of each ablation run, in words.
    """

    models: dict[str, Model] = field(default_factory=dict)
    params: dict[str, P] = field(default_factory=dict)
    axes: dict[str, AxisConfig] = field(default_factory=dict)
    rows: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    speed: dict[tuple[str, int], str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def progress(self, run: str) -> str:
        """The position of `run`, for logs: "ablations: run 3 of 40 (Reward: SSIM only, training seed 0)"; "" for other runs."""
        names = list(self.places)
        return f"ablations: run {names.index(run) + 1} of {len(names)} ({self.places[run]})" if run in self.places else ""


def overlaid(usual: P, given: VariantConfig, where: str, **own: Any) -> P:
    """The parameters `usual` with a variant's changes applied. own: sections that are replaced as a whole.

    Raises UserError if a change is impossible; it names `where`.section.key.
    """
    given.check(where)
    for section, changes in given.sections.items():
        before = getattr(usual, section)
        old = dataclasses.asdict(before)
        if section == "base_checkpoint" and "location" in changes:  # the digests and the commit belong to the old location
            old |= {"revision": None, "sha256": {}}
        own[section] = build_section(type(before), merge(old, changes), f"{where}.{section}")
    changed = usual.with_sections(**own, **({} if given.seed is None else {"seed": given.seed}))
    try:
        changed.check_run()
    except UserError as error:  # about a key that the variant changes, or one that conflicts with the change
        named = any(str(error).startswith(f"{key}.") for key in own) or (given.seed is not None and str(error).startswith("seed"))
        raise UserError(f"{where}.{error}" if named else f"{where}: {error}") from None
    return changed


def training_digest(run: RunParams) -> str:
    """What determines post-training's checkpoint, among the parameters that a variant can change."""
    parts = digest(run.post_training, run.base_checkpoint), run.rollout.history_index, run.seed
    return hashlib.sha256(str(parts).encode()).hexdigest()[:12]


def add_speed(found: Derived[P], settings: SpeedConfig, known: Models, for_run: Callable[[str], P]) -> None:
    """Add each model of `settings` with each number of sampler steps. for_run: a model's name -> its parameters."""
    for name in settings.models:
        rolled_out = known.rolled_out(known.names)
        require(name in rolled_out, "speed.models", name, f"no model or variant with a checkpoint; {nearest(name, rolled_out)}")
        usual, model = for_run(name), known[name]
        for steps in settings.steps:
            if steps == usual.rollout.sampler.steps:
                found.speed[name, steps] = name
                continue
            sampler = dataclasses.replace(usual.rollout.sampler, steps=steps)
            run = f"{name}-steps_{steps}"
            found.speed[name, steps] = run
            label = f"{model.label}, {steps} steps"
            found.models[run] = Model(run, "speed", label, model.colour, model.dashes, model.checkpoint, model.base)
            found.params[run] = usual.with_sections(rollout=dataclasses.replace(usual.rollout, sampler=sampler))


def add_ablations(found: Derived[P], settings: AblationsConfig, usual: P, checkpoints: dict[str, str], bases: dict[str, str]) -> None:
    """Add the rows of all axes, which change the run `usual`, and the base model with the rows' evaluation.

    checkpoints: training digest -> the model with this training; bases: digest of base_checkpoint -> its folder. Both contain the file's
    models and variants, and are extended.
    """
    if not settings.tables:
        return
    evaluation = build_section(
        type(usual.evaluation), merge(dataclasses.asdict(usual.evaluation), settings.evaluation), "ablations.evaluation"
    )
    # The tables of appendix B have full frames only, so that nothing is masked.
    shared = overlaid(usual, settings.shared, "ablations", evaluation=evaluation, masks=MasksConfig(source="none"))
    base = bases.setdefault(digest(shared.base_checkpoint), f"{BASE_RUN}_base")
    found.models[BASE_RUN] = Model(BASE_RUN, "ablation", "Base", BLUE, checkpoint=base, base=base)
    found.params[BASE_RUN] = shared
    for axis_name, axis in settings.tables.items():
        found.axes[axis_name], rows = axis, found.rows.setdefault(axis_name, {})
        for row_name, given in axis.rows.items():
            given, where = given or VariantConfig(), f"ablations.axes.{axis_name}.rows.{row_name}"
            row = overlaid(shared, given, where)
            chunks = row.rollout.chunks
            same = chunks == shared.rollout.chunks
            require(same, f"{where}.rollout.chunks", chunks, "rollouts of all rows are equally long: set ablations.rollout.chunks")
            seeds = settings.training_seeds if given.seed is None else (given.seed,)
            rows[row_name] = [_add_row(dataclasses.replace(row, seed=seed), shared, found, checkpoints, bases) for seed in seeds]
            for seed, run in zip(seeds, rows[row_name], strict=True):
                found.places.setdefault(run, f"{axis.title}: {axis.label(row_name)}, training seed {seed}")


def _add_row(run: P, shared: P, found: Derived[P], checkpoints: dict[str, str], bases: dict[str, str]) -> str:
    """Add one row's run for one training seed, unless there is one like it; returns its name."""
    trained = training_digest(run)
    name = f"ablation-{trained}"
    if run.rollout != dataclasses.replace(shared.rollout, history_index=run.rollout.history_index):
        name += f"-{digest(run.rollout)[:8]}"
    checkpoint = checkpoints.setdefault(trained, f"ablation-{trained}")
    base = bases.setdefault(digest(run.base_checkpoint), f"ablation-{digest(run.base_checkpoint)[:12]}_base")
    found.models.setdefault(name, Model(name, "ablation", name, BLUE, checkpoint=checkpoint, base=base))
    found.params.setdefault(name, run)
    return name
