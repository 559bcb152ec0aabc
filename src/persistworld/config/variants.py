"""Variants: the post-trained model with other parameters. Each adds a row to the tables."""

from dataclasses import dataclass, field
from typing import Any

from persistworld.config.checks import require


@dataclass(frozen=True)
class VariantConfig:
    """The changes of a variant to the parameter file. Keys that it does not name keep their values.

    Only outputs that a change affects are computed: a variant that changes only the sampler reuses the checkpoint of `post_trained`.
    """

    label: str = ""  # in tables and figures; "": "Variant NAME"
    post_training: dict[str, Any] = field(default_factory=dict)
    rollout: dict[str, Any] = field(default_factory=dict)  # for example the sampler of its rollouts; `chunks` cannot be changed
    base_checkpoint: dict[str, Any] = field(default_factory=dict)  # another base with the same autoencoder
    seed: int | None = None  # seed of its training; episodes and latents are shared

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """The sections that the variant changes."""
        named = {name: getattr(self, name) for name in ("post_training", "rollout", "base_checkpoint")}
        return {name: changes for name, changes in named.items() if changes}

    def check(self, where: str) -> None:
        plain = self.label.isprintable() and "|" not in self.label
        require(plain, f"{where}.label", self.label, "write one line without |, which separates the columns of a table")
