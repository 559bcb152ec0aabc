"""Variants: the post-trained model with other parameters, one more row in the tables each."""

from dataclasses import dataclass, field
from typing import Any

from persistworld.config.checks import require


@dataclass(frozen=True)
class VariantConfig:
    """What a variant changes in the parameter file; keys that it does not name keep their values.

    Only what a change concerns is computed: a variant with another sampler alone reuses the checkpoint of `post_trained`.
    """

    label: str = ""  # in tables and figures; "": "Variant NAME"
    post_training: dict[str, Any] = field(default_factory=dict)
    rollout: dict[str, Any] = field(default_factory=dict)  # the sampler of its rollouts, for example; not chunks
    base_checkpoint: dict[str, Any] = field(default_factory=dict)  # another base with the same autoencoder
    seed: int | None = None  # of its training; episodes and latents are shared

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """The sections that it changes."""
        named = {name: getattr(self, name) for name in ("post_training", "rollout", "base_checkpoint")}
        return {name: changes for name, changes in named.items() if changes}

    def check(self, where: str) -> None:
        plain = self.label.isprintable() and "|" not in self.label
        require(plain, f"{where}.label", self.label, "write one line without |, which separates the columns of a table")
