"""LoRA on the U-Net (peft): chooses the adapted modules, merges adapters, and adds them to a layer's weight during training."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.utils import parametrize

from persistworld.config.checks import require
from persistworld.config.post_training import AdapterConfig
from persistworld.world_model.model import WorldModel

ADAPTER = "default"  # peft's default adapter name, so that saved keys are the usual ones


class AdaptedWeight(nn.Module):
    """A layer's weight as W + scale * B A, recomputed at each use of the layer. Gradients flow to A and B."""

    def __init__(self, down: nn.Parameter, up: nn.Parameter, scale: float) -> None:
        super().__init__()
        self.down, self.up, self.scale = down, up, scale

    def forward(self, weight: Tensor) -> Tensor:
        kind = weight.device.type  # may be meta, which computes shapes only
        exact = torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else contextlib.nullcontext()
        with exact:  # the layer rounds the sum as it would round W
            return (weight + adapter_product(self.down, self.up, self.scale).reshape(weight.shape)).to(weight.dtype)


def sum_into_weights(unet: nn.Module, scale: float) -> None:
    """Replace peft's layers by the original layers with the adapter added to the weight.

    The function of A and B is the same, but a layer needs one matrix product instead of three.
    """
    for name, layer in [(n, m) for n, m in unet.named_modules() if isinstance(m, BaseTunerLayer)]:
        plain = layer.get_base_layer()
        parametrize.register_parametrization(
            plain, "weight", AdaptedWeight(layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight, scale)
        )
        unet.set_submodule(name, plain)


def adapter_product(down: Tensor, up: Tensor, scale: float) -> Tensor:
    """scale * B A in float32, (out, in * kernel), for linear layers and convolutions: A has the kernel, B is 1 x 1."""
    return scale * (up.float().flatten(1) @ down.float().flatten(1))


def lora_config(unet: nn.Module, lora: AdapterConfig) -> LoraConfig:
    """peft's configuration for the modules that `lora.targets` and `lora.exclude` select."""
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, init_lora_weights=True, target_modules=target_modules(unet, lora)
    )


def target_modules(unet: nn.Module, lora: AdapterConfig) -> list[str]:
    """Names of the U-Net's modules that get an adapter. Raises UserError if an entry of `lora.exclude` matches none, or none is left."""
    kinds: tuple[type[nn.Module], ...] = (nn.Linear,)
    if lora.targets == "linear_and_convolution":
        kinds = (nn.Linear, nn.Conv2d, nn.Conv3d)
    names = [n for n, m in unet.named_modules() if isinstance(m, kinds)]
    if lora.targets == "attention":
        names = [n for n in names if n.rsplit(".", 1)[-1] in ("to_q", "to_k", "to_v") or n.endswith("to_out.0")]
    # One-token cross-attention does not use its query and key.
    names = [n for n in names if not ("attn2.to_q" in n or "attn2.to_k" in n)]
    for part in lora.exclude:
        advice = f"no adapted module's name has it in it, such as {names[len(names) // 2]}"
        require(any(part in n for n in names), "post_training.lora.exclude", part, advice)
    chosen = [n for n in names if not any(part in n for part in lora.exclude)]
    require(len(chosen) > 0, "post_training.lora.exclude", ", ".join(lora.exclude), "leaves no module to adapt: exclude fewer")
    return chosen


@torch.no_grad()
def merge_into(plain: WorldModel, base: WorldModel, weights: Mapping[str, Tensor], scale: float) -> None:
    """plain <- base with `weights` merged in, tensor by tensor. `plain` may be `base`. scale: alpha / rank."""
    target = dict(plain.named_parameters())
    for name, value in merged_weights(dict(base.named_parameters()), weights, scale):
        target[name].copy_(value)


@torch.no_grad()
def merged_weights(origin: Mapping[str, Tensor], weights: Mapping[str, Tensor], scale: float) -> Iterator[tuple[str, Tensor]]:
    """Name and new value of each weight of `origin` that `weights` changes.

    For an adapter (`<module>.lora_A.weight` and `lora_B`, with or without the adapter's name in between) the value is W + scale * B A in
    float32. Other weights replace those of `origin`. A negative scale removes a merged adapter.
    """
    for name, down in weights.items():
        stem, adapter, rest = name.partition(".lora_A.")
        if adapter:
            up, weight = weights[f"{stem}.lora_B.{rest}"], origin[f"{stem}.weight"].float()
            yield f"{stem}.weight", weight + adapter_product(down, up, scale).reshape(weight.shape)
        elif ".lora_B." not in name:
            yield name, down
