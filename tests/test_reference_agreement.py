"""Agreement with Ctrl-World: with recorded vectors (tests/data) and with diffusers itself."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from safetensors.torch import load_file
from torch import Tensor

from persistworld.config.world_model import SamplerConfig, UNetConfig, WorldModelConfig
from persistworld.world_model import edm
from persistworld.world_model.action_encoder import ActionEncoder
from persistworld.world_model.model import Condition, Context, WorldModel
from persistworld.world_model.poses import PoseStatistics
from persistworld.world_model.sampler import euler_sample, guidance_scale, karras_sigmas
from persistworld.world_model.unet import (
    FrameConditionedUNet,
    SingleTokenProcessor,
    build_unet,
    use_fast_layers,
)

REFERENCE = Path(__file__).parent / "data"
HISTORY, FUTURE, FPS, BUCKET, NOISE_AUG, SCALE = 6, 5, 7, 127, 0.02, 0.18215
SIZES = UNetConfig(channels=(32, 64), heads=(1, 2), layers=1, cross_attention_dim=32, addition_time_embed_dim=8)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def relative(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def randomised(unet: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights large enough that every path shows in the output (some start at zero)."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return unet.eval()


def reference_unet() -> FrameConditionedUNet:
    unet = FrameConditionedUNet(**json.loads((REFERENCE / "tiny_unet_config.json").read_text()))
    unet.load_state_dict(
        {k.removeprefix("unet."): v for k, v in load_file(REFERENCE / "tiny_unet.safetensors").items()}
    )
    return unet.eval()


@pytest.mark.parametrize("fast", [False, True])
def test_unet_reproduces_the_recorded_forward(fast: bool) -> None:
    unet, vectors = reference_unet(), load_file(REFERENCE / "tiny_unet_forward.safetensors")
    if fast:
        use_fast_layers(unet)
    batch = vectors["sample"].shape[0]
    with torch.no_grad():
        output = unet(
            vectors["sample"],
            vectors["timestep"].expand(batch),
            vectors["encoder_hidden_states"],
            vectors["added_time_ids"],
        )
    assert relative(output, vectors["output"]) < 1e-4


@pytest.mark.parametrize("guidance", [1, 2])
def test_world_model_samples_the_recorded_chunk(guidance: int) -> None:
    """The whole of WorldModel.sample, its tokens handed over as the recording has them."""
    vectors = load_file(REFERENCE / f"sampler_guidance{guidance}_steps5.safetensors")
    unet = reference_unet()
    sizes = UNetConfig(channels=(32, 64), heads=(2, 4), layers=1, cross_attention_dim=64, addition_time_embed_dim=16)
    config = WorldModelConfig(unet=sizes, use_text=False)
    model = WorldModel(config, ("exterior_1",), PoseStatistics("euler", (0,) * 7, (1,) * 7), None).eval()
    model.unet.load_state_dict(unet.state_dict())
    condition = Condition(vectors["history"], vectors["current"], vectors["action_hidden"], None)
    model.context = lambda c: Context(c.history, c.current, c.poses)
    sampler = SamplerConfig(steps=5, guidance=float(guidance))
    assert relative(model.sample(condition, vectors["noise"], sampler), vectors["out"]) < 1e-4


def svd_scheduler(sampler: SamplerConfig) -> EulerDiscreteScheduler:
    """SVD's scheduler_config.json, with the sigmas of `sampler`."""
    return EulerDiscreteScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        interpolation_type="linear",
        use_karras_sigmas=True,
        sigma_min=sampler.sigma_min,
        sigma_max=sampler.sigma_max,
        timestep_spacing="leading",
        timestep_type="continuous",
        steps_offset=1,
    )


def network(x_scaled: Tensor, c_noise: Tensor) -> Tensor:
    """A smooth stand-in for the U-Net's raw output: mixes space and depends on the noise level."""
    return torch.tanh(1.3 * x_scaled + 0.4 * x_scaled.roll(1, -1)) * (1 + 0.1 * torch.sin(c_noise))


@pytest.mark.parametrize("steps", [50, 7, 2])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_sampler_is_diffusers_euler_scheduler(steps: int, guidance: float) -> None:
    sampler = SamplerConfig(steps=steps, guidance=guidance)
    noise = torch.randn(2, FUTURE, 4, 6, 5, generator=torch.Generator().manual_seed(steps))
    ramp = torch.linspace(1, guidance, FUTURE).reshape(1, -1, 1, 1, 1)

    scheduler = svd_scheduler(sampler)
    scheduler.set_timesteps(steps)
    x = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        free = network(0.5 * scaled, t)
        output = free + ramp * (network(scaled, t) - free)
        x = scheduler.step(output, t, x).prev_sample

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        scaled, level = x * edm.c_in(sigma), edm.c_noise(sigma)
        conditioned = edm.predict_x0(network(scaled, level), x, sigma)
        free = edm.predict_x0(network(0.5 * scaled, level), x, sigma)
        return free + guidance_scale(sampler, FUTURE) * (conditioned - free)

    assert torch.allclose(karras_sigmas(sampler), scheduler.sigmas, rtol=1e-5)
    assert relative(euler_sample(denoise, noise, sampler), x) < 1e-4


def test_frame_condition_is_the_stock_unet_when_all_frames_share_a_token() -> None:
    """Stock SVD repeats one context over the frames; with one token for all of them the two are one function."""
    unet = randomised(build_unet(SIZES, 4, HISTORY + FUTURE))
    stock = UNetSpatioTemporalConditionModel(**{k: v for k, v in unet.config.items() if not k.startswith("_")}).eval()
    stock.load_state_dict(unet.state_dict())
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(2, 11, 8, 6, 10, generator=generator)
    timestep = torch.tensor([-0.3, 1.2])
    token = torch.randn(2, 1, SIZES.cross_attention_dim, generator=generator)
    ids = torch.tensor([[FPS, BUCKET, NOISE_AUG]] * 2)
    with torch.no_grad():
        ours = unet(sample, timestep, token.expand(-1, 11, -1), ids)
        # Stock takes one timestep for all: run the clips one by one.
        theirs = torch.cat(
            [stock(sample[i : i + 1], timestep[i], token[i : i + 1], ids[i : i + 1]).sample for i in (0, 1)]
        )
    assert relative(ours, theirs) < 1e-5


def test_gradients_are_the_stock_unets() -> None:
    """Through the layers that stand in for stock ones: their parameters keep their names, so gradients can be held side by side."""
    unet = randomised(build_unet(SIZES, 4, HISTORY + FUTURE))
    stock = UNetSpatioTemporalConditionModel(**{k: v for k, v in unet.config.items() if not k.startswith("_")}).eval()
    stock.load_state_dict(unet.state_dict())
    generator = torch.Generator().manual_seed(2)
    sample, token = torch.randn(1, 11, 8, 6, 10, generator=generator), torch.randn(1, 1, SIZES.cross_attention_dim, generator=generator)
    ids = torch.tensor([[FPS, BUCKET, NOISE_AUG]])
    unet(sample, torch.tensor([0.4]), token.expand(-1, 11, -1), ids).square().sum().backward()
    stock(sample, torch.tensor(0.4), token, ids).sample.square().sum().backward()
    ours = {n: p.grad for n, p in unet.named_parameters() if p.grad is not None}
    theirs = {n: p.grad for n, p in stock.named_parameters() if p.grad is not None}
    largest = max(gradient.abs().max() for gradient in theirs.values())
    for name in theirs.keys() - ours.keys():  # what only the query or the key of a softmax over one token sees
        assert (".attn2.to_" in name or ".norm2." in name) and theirs[name].abs().max() < 1e-5 * largest
    for name, gradient in ours.items():  # some are zero but for rounding, such as a bias's before a normalisation
        assert (gradient - theirs[name]).norm() < 1e-4 * theirs[name].norm() + 1e-6 * largest, name


def test_frames_see_their_own_token_in_space_and_the_first_one_in_time() -> None:
    """The temporal cross-attention of SVD's blocks reads the first frame's token only."""
    unet = randomised(build_unet(SIZES, 4, 4))
    seen: dict[str, list[Tensor]] = {"attn2": [], "temporal": []}
    for name, module in unet.named_modules():
        if isinstance(module, Attention) and name.endswith("attn2"):
            kind = "temporal" if ".temporal_transformer_blocks." in name else "attn2"
            module.register_forward_hook(
                lambda _m, args, kwargs, _o, kind=kind: seen[kind].append(
                    kwargs.get("encoder_hidden_states", args[1] if len(args) > 1 else None)
                ),
                with_kwargs=True,
            )
    tokens = torch.randn(1, 4, SIZES.cross_attention_dim, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        unet(torch.zeros(1, 4, 8, 4, 4), torch.zeros(1), tokens, torch.zeros(1, 3))
    assert seen["attn2"] and seen["temporal"]
    for context in seen["attn2"]:
        assert torch.equal(context[:, 0], tokens[0])
    for context in seen["temporal"]:
        assert torch.equal(context[:, 0], tokens[0, :1].expand(context.shape[0], -1))


def test_single_token_processor_is_stock_attention() -> None:
    torch.manual_seed(3)
    attention = Attention(query_dim=24, cross_attention_dim=16, heads=3, dim_head=8).eval()
    hidden, token = torch.randn(5, 7, 24), torch.randn(5, 1, 16)
    with torch.no_grad():
        attention.set_processor(AttnProcessor())
        stock = attention(hidden, encoder_hidden_states=token)
        attention.set_processor(SingleTokenProcessor())
        ours = attention(hidden, encoder_hidden_states=token)
    assert torch.allclose(ours, stock, atol=1e-6)


def test_edm_identities() -> None:
    sigma = torch.logspace(-3, 3, 25, dtype=torch.float64)
    x0, noise = torch.randn(2, 25, dtype=torch.float64)
    x_sigma = x0 + sigma * noise
    assert torch.allclose(edm.c_in(sigma) ** 2 * (1 + sigma**2), torch.ones_like(sigma))
    assert torch.allclose(edm.c_out(sigma) ** 2 * edm.loss_weight(sigma), torch.ones_like(sigma))
    assert torch.allclose(edm.c_skip(sigma), edm.c_in(sigma) ** 2)
    assert torch.allclose(edm.c_noise(sigma), 0.25 * torch.log(sigma))
    # The network's perfect output is the velocity of x0 and noise (v-prediction), of unit variance at every sigma.
    velocity = (noise - sigma * x0) * edm.c_in(sigma)
    assert torch.allclose(edm.predict_x0(velocity, x_sigma, sigma), x0)


def test_sigmas_of_training_have_the_named_moments() -> None:
    sigmas = edm.sample_log_normal((20_000,), 0.7, 1.6, torch.Generator().manual_seed(0)).log()
    assert abs(sigmas.mean().item() - 0.7) < 0.05 and abs(sigmas.std().item() - 1.6) < 0.05


def test_action_encoder_repeats_the_text_and_adds_it() -> None:
    """Ctrl-World: the CLIP embedding (512) twice, to the width (1024), added to every frame's token."""
    torch.manual_seed(4)
    encoder = ActionEncoder(7, 16)
    poses, text = torch.randn(2, 11, 7), torch.randn(2, 8)
    plain = torch.stack([encoder.action_encode(poses[:, f]) for f in range(11)], dim=1)
    assert torch.allclose(encoder(poses), plain, atol=1e-6)
    assert torch.allclose(encoder(poses, text), plain + torch.cat([text, text], dim=1)[:, None], atol=1e-6)
