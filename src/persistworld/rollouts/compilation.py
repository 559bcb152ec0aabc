"""Compiles the U-Net for many rollouts of the same shape: `compute.rollout.torch_compile`."""

import torch
from torch import nn

from persistworld.world_model.compiler import require_compiler
from persistworld.world_model.model import WorldModel


def compile_unet(model: WorldModel, precision: str, mode: str | None = None) -> None:
    """Compile `model`'s U-Net in place for sampling in `precision`, after `prepare_unet`. The names of its parameters do not change.

    mode: torch.compile's. The default on a GPU is "reduce-overhead": the whole forward pass is one CUDA graph. A CUDA graph has a fixed
    shape, so each shape is compiled separately; `rollout` therefore pads its batches to one size. The first chunk takes minutes at full
    size. Raises UserError if there is no C++ compiler.
    """
    require_compiler("compute.rollout.torch_compile", True)
    prepare_unet(model, precision)
    mode = mode or ("reduce-overhead" if model.device.type == "cuda" else "default")
    model.unet.compile(fullgraph=True, dynamic=False, mode=mode)


def prepare_unet(model: WorldModel, precision: str) -> None:
    """Convert the U-Net's weights in place for sampling in `precision`.

    They become channels-last, the layout that GPU convolutions prefer. Weights that autocast would cast in every sampler step are cast
    once, so the model can sample afterwards, but not train.
    """
    held = torch.bfloat16 if precision == "bfloat16" else torch.float32
    for module in model.unet.modules():
        # The layer types that autocast runs in bfloat16; normalisations stay in float32.
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            module.to(held)
        # Frames in channels-last layout are also channels-last in 3-D: no copy between spatial and temporal layers.
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)
