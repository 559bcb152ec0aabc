"""The trainable weights of a world model: LoRA on the U-Net (peft) and the whole action encoder. Also makes copies with them merged in.

`theta` is trained and `old` is its moving average (paper 3.2, Algorithm 1). Sampling and the reference's predictions use a plain U-Net
with the adapter merged. This is exact and adds no cost per step. Theta's loss runs through peft's adapter layers or, with
`compute.post_training.merged_adapter`, through the sum of each weight and its adapter. The three models share all unchanged base weights.
"""

import copy
from collections.abc import Collection

import torch
from peft import inject_adapter_in_model
from torch import Tensor

from persistworld.config.compute import PostTrainingCompute
from persistworld.config.post_training import AdapterConfig
from persistworld.world_model.lora import ADAPTER, lora_config, merge_into, merged_weights, sum_into_weights
from persistworld.world_model.model import WorldModel


class Policy:
    """Three weight sets of one frozen world model: `theta` (trained), `old` (its moving average) and the base."""

    def __init__(
        self,
        base: WorldModel,
        lora: AdapterConfig,
        train_action_encoder: bool,
        seed: int,
        compute: PostTrainingCompute = PostTrainingCompute(),
    ) -> None:
        self.base = base
        self.scale = lora.alpha / lora.rank
        self.model = _copy_sharing(base, own={n for n, _ in base.named_parameters() if n.startswith("action_encoder.")})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # peft draws its initial weights from the global generator
            inject_adapter_in_model(lora_config(base.unet, lora), self.model.unet, ADAPTER)
        self.model.action_encoder.requires_grad_(train_action_encoder)
        if compute.gradient_checkpointing:
            self.model.unet.enable_gradient_checkpointing()
        self.theta = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        if compute.merged_adapter:
            sum_into_weights(self.model.unet, self.scale)
        self.old = {n: p.detach().clone() for n, p in self.theta.items()}
        self._merged = _copy_sharing(base, own={n for n, _ in merged_weights(dict(base.named_parameters()), self.theta, self.scale)})

    def merged(self, weights: dict[str, Tensor]) -> WorldModel:
        """The plain world model with `weights` (names and shapes as theta) merged in. Valid until the next call."""
        merge_into(self._merged, self.base, weights, self.scale)
        return self._merged


def _copy_sharing(base: WorldModel, own: Collection[str]) -> WorldModel:
    """A copy of `base` that shares all parameters except those named in `own`."""
    return copy.deepcopy(base, {id(p): p for n, p in base.named_parameters() if n not in own})
