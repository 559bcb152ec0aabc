"""The trainable part: LoRA on the U-Net (peft) and the whole action encoder; and plain copies of the model with it merged in.

`theta` learns and `old` follows it (paper 3.2, Algorithm 1). Only theta's loss needs the adapter as layers of its own; sampling and the
reference's predictions use a plain U-Net with the adapter merged, which is exact and costs nothing per step.
"""

import copy

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from persistworld import params
from persistworld.world_model.model import WorldModel

ADAPTER = "default"  # peft's own name for a sole adapter, so that saved keys are the usual ones


class Policy:
    """Three weight sets of one world model: `theta` (trained), `old` (its slow copy) and the base they started from."""

    def __init__(self, base: WorldModel, lora: params.Lora, train_action_encoder: bool, seed: int) -> None:
        self.base = base
        self.lora = lora
        self.model = copy.deepcopy(base)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # peft draws its initial weights from the global generator
            inject_adapter_in_model(lora_config(base.unet, lora), self.model.unet, ADAPTER)
        self.model.action_encoder.requires_grad_(train_action_encoder)
        self.theta = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.old = {n: p.detach().clone() for n, p in self.theta.items()}
        self._merged = copy.deepcopy(base)

    def merged(self, weights: dict[str, Tensor]) -> WorldModel:
        """The plain world model with `weights` (of theta's names and shapes) merged in; valid until the next call."""
        merge_into(self._merged, self.base, weights, self.lora)
        return self._merged


def lora_config(unet: nn.Module, lora: params.Lora) -> LoraConfig:
    """peft's configuration for the modules that `lora.targets` names."""
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, init_lora_weights=True, target_modules=target_modules(unet, lora.targets)
    )


def target_modules(unet: nn.Module, targets: str) -> list[str]:
    """Names of the U-Net's modules that get an adapter."""
    kinds: tuple[type[nn.Module], ...] = (nn.Linear,)
    if targets == "linear_and_convolution":
        kinds = (nn.Linear, nn.Conv2d, nn.Conv3d)
    names = [n for n, m in unet.named_modules() if isinstance(m, kinds)]
    if targets == "attention":
        names = [n for n in names if n.rsplit(".", 1)[-1] in ("to_q", "to_k", "to_v") or n.endswith("to_out.0")]
    # A one-token cross-attention never looks at its query and key.
    return [n for n in names if not ("attn2.to_q" in n or "attn2.to_k" in n)]


@torch.no_grad()
def merge_into(plain: WorldModel, base: WorldModel, weights: dict[str, Tensor], lora: params.Lora) -> None:
    """plain <- base + alpha / rank * B A for every adapter in `weights`, and the action encoder as it is in them."""
    target, origin = dict(plain.named_parameters()), dict(base.named_parameters())
    for name, down in weights.items():
        if name.endswith(f".lora_A.{ADAPTER}.weight"):
            stem = name.removesuffix(f".lora_A.{ADAPTER}.weight")
            up = weights[f"{stem}.lora_B.{ADAPTER}.weight"]
            weight = origin[f"{stem}.weight"]
            delta = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
            target[f"{stem}.weight"].copy_(weight + lora.alpha / lora.rank * delta)
        elif ".lora_" not in name:
            target[name].copy_(weights[name])


