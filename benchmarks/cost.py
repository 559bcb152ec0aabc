"""FLOPs and peak memory of any preset, computed on the meta device without weights or a GPU in under a minute.

torch.utils.flop_counter counts this package's modules. The published counts (8.87 TFLOP per forward pass, 444 per chunk of 50 steps) are
for the stock network without attention's own products, which the counter does not see in a fused kernel on a CPU.
"""

import dataclasses
from dataclasses import dataclass

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from benchmarks.footprint import flops, peak_bytes
from benchmarks.materials import random_model
from benchmarks.table import Row
from persistworld.config.compute import PostTrainingCompute
from persistworld.config.params import Params
from persistworld.config.post_training import PostTrainingConfig
from persistworld.post_training.groups import compared_share
from persistworld.training.policy import Policy
from persistworld.world_model.autoencoder import Autoencoder
from persistworld.world_model.model import Context, WorldModel

TERA, GIB = 1e12, 2**30
H200 = 989e12  # FLOP/s for dense bfloat16 matrix products, from the data sheet (the same as H100's)
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


@dataclass(frozen=True)
class _Models:
    model: WorldModel
    autoencoder: Autoencoder
    stacked: tuple[int, int, int]  # (C, V * h, w)

    def context(self, batch: int, dtype: torch.dtype = FLOAT32) -> Context:
        config = self.model.config
        return Context(
            _empty(batch, config.history, *self.stacked, dtype=dtype),
            _empty(batch, *self.stacked, dtype=dtype),
            _empty(batch, config.history + config.future, config.unet.cross_attention_dim, dtype=dtype),
        )

    def forward(self, batch: int, dtype: torch.dtype = FLOAT32) -> Tensor:
        """One U-Net evaluation for `batch` chunks."""
        chunk = _empty(batch, self.model.config.future, *self.stacked, dtype=dtype)
        return self.model.predict_x0(chunk, _empty(batch, dtype=dtype), self.context(batch, dtype))


def rows(params: Params) -> list[Row]:
    """FLOPs of a forward pass, a chunk, decoding and encoding a view, and a post-training step. Memory of sampling and updating."""
    models = _models(params)
    return [*_flops(models, params), *_memory(models, params.post_training, params.compute.post_training)]


@torch.no_grad()
def chunk_flops(params: Params) -> float:
    """FLOPs of one chunk of `rollout.sampler.steps` steps."""
    models = _models(params)
    return params.rollout.sampler.steps * flops(lambda: models.forward(1))


def _models(params: Params) -> _Models:
    with torch.device("meta"):
        model, autoencoder = random_model(params), Autoencoder(params.world_model.autoencoder)
    model.to("meta"), autoencoder.to("meta")  # diffusers creates some parameters outside the device context
    for name, module in model.unet.named_modules():
        if isinstance(module, Attention) and not name.endswith("attn2"):
            module.set_processor(AttnProcessor2_0())  # the processor used on a GPU
    size, factor = params.episodes, autoencoder.factor
    stacked = (autoencoder.sizes.latent_channels, len(size.views) * (size.height // factor), size.width // factor)
    return _Models(model, autoencoder, stacked)


@torch.no_grad()
def _flops(models: _Models, params: Params) -> list[Row]:
    settings, config, size = params.post_training, params.world_model, params.episodes
    forward = flops(lambda: models.forward(1))
    own = _attention_flops(models)
    stock = forward + _single_token_savings(models)
    channels, _, width = models.stacked
    view = (config.future, channels, models.stacked[1] // len(size.views), width)
    decode = flops(lambda: models.autoencoder.decode(_empty(*view)))
    encode = flops(lambda: models.autoencoder.encode(_empty(config.future, 3, size.height, size.width)))
    chunk, steps = forward * params.rollout.sampler.steps, params.rollout.sampler.steps
    kept = settings.groups * settings.kept * settings.branch
    candidates = settings.groups * settings.candidates * settings.branch
    prefixes = 0 if settings.streams else settings.groups * sum(settings.prefix) / 2
    sampled = (prefixes + candidates) * settings.sampler.steps * forward
    # Forward passes: theta 1, its backward 2, 1 more with checkpointing, old 1 unless it is theta, base 1 per sample in the KL term.
    updated = kept * (4 - settings.old_is_theta + params.compute.post_training.gradient_checkpointing + compared_share(settings)) * forward
    scored = candidates * len(size.views) * decode  # every view of every candidate
    step = sampled + updated + scored
    per_step, days = f"{settings.groups} groups of {settings.candidates}", settings.steps * step / H200 / 8 / 86400
    facts = (stock - own) / TERA
    return [
        Row("U-Net forward", forward / TERA, "TFLOP", f"attention's own products: {own / TERA:.3g} of it"),
        Row("the same, stock cross-attention", stock / TERA, "TFLOP", f"{facts:.3g} as published (8.87 at full size)"),
        Row(f"chunk, {steps} steps", chunk / TERA, "TFLOP", f"{facts * steps:.3g} as published (444 at full size)"),
        Row("chunk, floor on one H200", chunk / H200, "s", "at 989 TFLOP/s"),
        Row("decode, a view of a chunk", decode / TERA, "TFLOP", "3.5 at full size"),
        Row("encode, a view of a chunk", encode / TERA, "TFLOP", "1.3 at full size"),
        Row("post-training step", step / TERA, "TFLOP", f"{per_step}; mean prefix {sum(settings.prefix) / 2:g}"),
        Row("of it, sampling", 100 * sampled / step, "%", f"update {100 * updated / step:.1f}, rewards {100 * scored / step:.1f}"),
        Row("post-training, floor on eight H200", days, "days", f"{settings.steps:,} steps of {step / H200 / 8:.3g} s"),
    ]


def _attention_flops(models: _Models) -> float:
    """FLOPs of attention's own two matrix products in one forward pass: 4 * tokens^2 * width per attention layer."""
    total = 0

    def count(module: Attention, inputs: tuple[Tensor, ...]) -> None:
        nonlocal total
        batch, tokens, _ = inputs[0].shape
        total += 4 * batch * tokens**2 * module.inner_dim

    return _with_hooks(models, "attn1", count, lambda: total)


def _single_token_savings(models: _Models) -> float:
    """FLOPs that stock cross-attention would spend on queries, keys, scores and the output projection at every position."""
    total = 0

    def count(module: Attention, inputs: tuple[Tensor, ...]) -> None:
        nonlocal total
        batch, tokens, width = inputs[0].shape
        inner, cross = module.inner_dim, module.cross_attention_dim
        total += 2 * batch * (tokens * inner * (width + width) + cross * inner - inner * width)

    return _with_hooks(models, "attn2", count, lambda: total)


def _with_hooks(models: _Models, suffix: str, hook, result) -> float:
    handles = [
        module.register_forward_pre_hook(hook)
        for name, module in models.model.unet.named_modules()
        if isinstance(module, Attention) and name.endswith(suffix)
    ]
    models.forward(1)
    for handle in handles:
        handle.remove()
    return result()


def _memory(models: _Models, settings: PostTrainingConfig, compute: PostTrainingCompute) -> list[Row]:
    """Memory that sampling and updating take on one device. The larger sum is the peak."""
    model = models.model
    weights, text = _count(model), 0 if model.text_encoder is None else _count(model.text_encoder)
    with torch.no_grad():
        sampling = peak_bytes(lambda: models.forward(1, FLOAT32))
        channels, rows, width = models.stacked
        view = _empty(128, channels, rows // len(model.views), width)
        decoding = peak_bytes(lambda: models.autoencoder.decode(view))
    model.requires_grad_(False)
    policy = Policy(model, settings.lora, settings.train_action_encoder, 0, compute)
    size = sum(p.numel() for p in policy.theta.values())
    momentum = sum(p.numel() * (1 if p.ndim >= 2 and settings.optimizer.name == "muon" else 2) for p in policy.theta.values())
    # Base, theta and the copy with merged adapters share the weights that no adapter changes.
    kept = {id(p): p.numel() for m in (model, policy.model, policy.merged(policy.theta)) for p in m.parameters()}
    copies, states = 4 * (sum(kept.values()) - size), 4 * (4 * size + momentum)  # theta, old, average, gradient
    theta = dataclasses.replace(models, model=policy.model)
    step = peak_bytes(lambda: theta.forward(1).sum().backward()) - 4 * size
    policy.model.to(BFLOAT16)
    low = peak_bytes(lambda: theta.forward(1, BFLOAT16).sum().backward()) - 2 * size
    with torch.no_grad():
        low_sampling = peak_bytes(lambda: theta.forward(1, BFLOAT16))
    decoder = _count(models.autoencoder)
    fixed = copies + states + 4 * decoder
    # Autocast casts a layer's weights on each use and keeps the casts for the backward pass; with checkpointing only one block's.
    whole = settings.precision == "float32"  # nothing is cast
    cast = 0 if whole or compute.gradient_checkpointing else 2 * weights
    at_once, batch = compute.sample_batch or settings.groups * settings.candidates, compute.train_batch
    trained_part = f"LoRA rank {settings.lora.rank} on {settings.lora.targets}, and the action encoder"
    how = "with gradient checkpointing" if compute.gradient_checkpointing else "without gradient checkpointing"
    return [
        Row("world model", weights / 1e6, "M parameters", f"{text / 1e6:.3g} of them the text encoder"),
        Row("autoencoder", decoder / 1e6, "M parameters", ""),
        Row("trained", size / 1e6, "M parameters", trained_part),
        Row("weights", copies / GIB, "GiB", f"float32: base, theta and the merged copy; {4 * weights / GIB:.3g} of it the base"),
        Row("bfloat16 casts kept for the backward pass", cast / GIB, "GiB", "none: post_training.precision is float32" if whole else how),
        Row("theta, old, average, gradient, optimiser", states / GIB, "GiB", settings.optimizer.name),
        Row("sampling, a candidate", low_sampling / GIB, "GiB", f"activations in bfloat16; {sampling / GIB:.3g} in float32"),
        Row("update, a sample", low / GIB, "GiB", f"activations in bfloat16; {step / GIB:.3g} in float32; {how}"),
        Row("decoding, 128 images", decoding / GIB, "GiB", "activations in float32; in rewards and scores"),
        _peak(f"peak, {at_once} candidates at once", fixed, at_once, low_sampling, sampling, whole),
        _peak(f"peak, update by {batch}", fixed + cast, batch, low, step, whole),
    ]


def _peak(what: str, fixed: float, count: int, low: int, full: int, whole: bool) -> Row:
    """`fixed` bytes plus `count` times the activations (`low` in bfloat16, `full` in float32). `whole`: everything is in float32."""
    if whole:
        return Row(what, (fixed + count * full) / GIB, "GiB", "in float32")
    return Row(what, (fixed + count * low) / GIB, "GiB", f"to {(fixed + count * full) / GIB:,.3g}: autocast lies between the two")


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _empty(*shape: int, dtype: torch.dtype = FLOAT32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")
