"""The evaluated models: name, role, label, colour, and the checkpoint that is rolled out.

Stages, tables, figures and the report all use this registry. A new model is a new entry in `FIXED`. Variants come from the parameter file.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

# In the order of the tables.
Role = Literal["baseline", "base", "control", "post_trained", "variant", "speed", "ablation", "ceiling"]
ROLES: tuple[Role, ...] = ("baseline", "base", "control", "post_trained", "variant", "speed", "ablation", "ceiling")

Dashes = tuple[float, tuple[float, ...]]  # Matplotlib's line style: offset, lengths on and off in points


@dataclass(frozen=True)
class Model:
    """One model. `checkpoint` (the model to roll out) and `base` (the base of its adapter) are folders below checkpoints/.

    A model without a checkpoint needs no rollouts: its frames are computed from the ground truth.
    """

    name: str
    role: Role
    label: str
    colour: str  # from the colour-blind safe palette of Okabe and Ito
    dashes: Dashes | Literal["-"] = "-"
    checkpoint: str | None = None
    base: str = "base"


GROUND_TRUTH_COLOUR = "#0072B2"
VARIANT_COLOUR = "#E69F00"
FIXED = (
    Model("copy_frame", "baseline", "Copy first frame", "#8A8A8A", (0, (1, 1.5))),
    Model("base", "base", "Base", "#D55E00", checkpoint="base"),
    Model("teacher_forced", "control", "Teacher-forced (control)", "#AA4499", (0, (5, 2)), "teacher_forced"),
    Model("own_history", "control", "Own history, supervised (control)", "#CC79A7", (0, (5, 1, 1, 1)), "own_history"),
    Model("post_trained", "post_trained", "Post-trained", "#009E73", checkpoint="post_trained"),
    Model("autoencoder", "ceiling", "Autoencoder (ceiling)", "#56B4E9", (0, (3, 1, 1, 1))),
)
THEIRS, OURS = "base", "post_trained"  # the pair that the headline compares
SHOWN = (THEIRS, OURS)  # side by side in film strips, videos and `persistworld drive`


def variant(name: str, label: str, checkpoint: str, base: str) -> Model:
    """A variant of the post-trained model. Without a label, its name is printed."""
    return Model(name, "variant", label or f"Variant {name}", VARIANT_COLOUR, checkpoint=checkpoint, base=base)


@dataclass(frozen=True)
class Models:
    """All models of one parameter file by name: the fixed models, and the variants and derived models, in the order of the tables."""

    variants: tuple[Model, ...] = ()
    _by_name: dict[str, Model] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ordered = sorted((*FIXED, *self.variants), key=lambda model: ROLES.index(model.role))
        object.__setattr__(self, "_by_name", {model.name: model for model in ordered})

    def __getitem__(self, name: str) -> Model:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._by_name)

    def ordered(self, names: Iterable[str]) -> list[str]:
        """`names` in the order of the tables."""
        wanted = set(names)
        return [name for name in self._by_name if name in wanted]

    def of_role(self, names: Iterable[str], *roles: Role) -> list[str]:
        """The `names` whose role is in `roles`, in the order of the tables."""
        return [name for name in self.ordered(names) if self[name].role in roles]

    def rivals(self, model: str, names: Iterable[str]) -> list[str]:
        """What a model outside the default run is compared with: the base, and the controls and post_trained among `names`."""
        return [name for name in self.of_role(("base", *names), "base", "control", "post_trained") if name != model]

    def rolled_out(self, names: Iterable[str]) -> list[str]:
        """The `names` that need rollouts."""
        return [name for name in self.ordered(names) if self[name].checkpoint]

    @property
    def post_trainings(self) -> list[str]:
        """The models that the stage post_training trains: post_trained, and variants and ablations with checkpoints of their own."""
        return [name for name in self.of_role(self.names, "post_trained", "variant", "ablation") if self[name].checkpoint == name]

    @property
    def bases(self) -> dict[str, str]:
        """The variants' own base checkpoints: folder below checkpoints/ -> the first variant that uses it."""
        found: dict[str, str] = {}
        for model in self.variants:
            if model.base != "base":
                found.setdefault(model.base, model.name)
        return found
