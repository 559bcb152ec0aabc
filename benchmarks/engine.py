"""Compares our sampler with a plain diffusers loop on the same small model.

The plain loop encodes instruction and poses in every step, uses stock attention (also over the single token of the frame-level condition)
and steps diffusers' EulerDiscreteScheduler in float32. Both must give the same chunk.
"""

import copy

import torch
from diffusers import EulerDiscreteScheduler
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from benchmarks.materials import SENTENCE, Materials
from benchmarks.table import Row, seconds, seconds_in_turns
from persistworld.config.world_model import SamplerConfig
from persistworld.world_model.model import FPS, MOTION_BUCKET, Condition, WorldModel


def rows(materials: Materials) -> list[Row]:
    """Chunks per second of both, their ratio, and the difference of their outputs."""
    model, settings = materials.model, materials.params.rollout
    batch = materials.params.compute.rollout.batch
    condition, noise = materials.condition(batch), materials.latents(batch, model.config.future)
    stock = copy.deepcopy(model)
    stock.unet.set_attn_processor(AttnProcessor2_0())
    ours, plain = (
        model.sample(condition, noise, settings.sampler),
        plain_loop(stock, condition, noise, settings.sampler),
    )
    time_plain, time_float = seconds_in_turns(
        [lambda: plain_loop(stock, condition, noise, settings.sampler), lambda: model.sample(condition, noise, settings.sampler)]
    )
    note = f"batch {batch}, {settings.sampler.steps} steps"
    parts = [
        Row("plain diffusers loop, float32", batch / time_plain, "chunks/s", note),
        Row("ours, float32", batch / time_float, "chunks/s", f"{time_plain / time_float:.2f} times the plain loop"),
    ]
    if settings.precision != "float32":
        time = seconds(lambda: model.sample(condition, noise, settings.sampler, settings.precision))
        parts.append(Row(f"ours, {settings.precision}", batch / time, "chunks/s", f"{time_plain / time:.2f} times the plain loop"))
    difference = ((ours - plain).norm() / plain.norm()).item()
    return [*parts, Row("difference in float32", difference, "relative", "only rounding")]


@torch.no_grad()
def plain_loop(model: WorldModel, condition: Condition, noise: Tensor, sampler: SamplerConfig, passes: int = 1) -> Tensor:
    """One chunk (B, L, C, Vh, w) from unit-variance `noise`. Nothing is cached between steps.

    passes: forward passes per step. With 2, as for guidance, the result of the second one is used.
    """
    scheduler = EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_min=sampler.sigma_min,
        sigma_max=sampler.sigma_max,
        timestep_spacing="leading",
        timestep_type="continuous",
        steps_offset=1,
    )
    scheduler.set_timesteps(sampler.steps, device=noise.device)
    batch, past = len(noise), condition.history.shape[1]
    x = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        text = model.encode_instructions([SENTENCE] * batch)
        tokens = model.action_encoder(condition.poses, text)
        frames = torch.cat([condition.history, scheduler.scale_model_input(x, t)], dim=1)
        current = (condition.current / model.scaling_factor)[:, None].expand(-1, frames.shape[1], -1, -1, -1)
        ids = torch.tensor([[FPS, MOTION_BUCKET, sampler.noise_aug]], device=x.device).expand(batch, -1)
        for _ in range(passes):
            output = model.unet(torch.cat([frames, current], dim=2), t.expand(batch), tokens, ids)
        x = scheduler.step(output[:, past:], t, x).prev_sample
    return x
