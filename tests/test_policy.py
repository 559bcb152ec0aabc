"""The trained part: which weights it is, that merging is exact, and that files lead back to the same model."""

import copy
import dataclasses
import shutil

import peft
import pytest
import torch
from refusals import refused
from tiny import SIZES, VIEWS, make_model
from torch import nn

from persistworld import load_world_model
from persistworld.checkpoints.adapters import ACTION_ENCODER, ADAPTER_CONFIG, ADAPTER_WEIGHTS, save_adapter
from persistworld.checkpoints.folders import save_world_model
from persistworld.checkpoints.layout import MANIFEST, WEIGHTS
from persistworld.config.compute import PostTrainingCompute
from persistworld.config.post_training import AdapterConfig, PostTrainingConfig
from persistworld.config.reading import digest
from persistworld.runtime.files import read_json, sha256, write_json
from persistworld.runtime.tensor_files import read_tensors, write_tensors
from persistworld.training.policy import Policy
from persistworld.world_model.lora import target_modules
from persistworld.world_model.model import Condition, WorldModel

TARGETS = ["attention", "linear", "linear_and_convolution"]
SETTINGS = PostTrainingConfig(lora=AdapterConfig(rank=3, alpha=6.0, targets="linear_and_convolution"))


def inputs(base: WorldModel):
    """x_sigma, sigma and a condition, batch 2."""
    rng = torch.Generator().manual_seed(0)
    x_sigma, history = torch.randn(2, 5, 4, 12, 4, generator=rng), torch.randn(2, 6, 4, 12, 4, generator=rng)
    poses = torch.rand(2, 11, 10, generator=rng) * 2 - 1
    condition = Condition(history, history[:, -1], poses, base.encode_instructions(["lift the cup", ""]))
    return x_sigma, torch.tensor([0.5, 3.0]), condition


@torch.no_grad()
def predict(model: WorldModel) -> torch.Tensor:
    x_sigma, sigma, condition = inputs(model)
    return model.predict_x0(x_sigma, sigma, model.context(condition))


def moved(base: WorldModel, targets: str = "linear_and_convolution", train_action_encoder: bool = True) -> Policy:
    """A policy away from its start: every trained weight is off by a little."""
    policy = Policy(base, AdapterConfig(rank=3, alpha=6.0, targets=targets), train_action_encoder, seed=0)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in policy.theta.values():
            weight += 0.05 * torch.randn(weight.shape, generator=rng)
    return policy


def test_a_policy_starts_as_the_base(base):
    policy = Policy(base, SETTINGS.lora, True, seed=0)
    assert torch.allclose(predict(policy.model), predict(base), atol=1e-5)  # products in another order where peft's layers are
    summed = Policy(base, SETTINGS.lora, True, seed=0, compute=PostTrainingCompute(merged_adapter=True))
    assert torch.equal(predict(summed.model), predict(base))
    assert torch.equal(predict(policy.merged(policy.theta)), predict(base))
    assert all(torch.equal(policy.old[n], w) and policy.old[n] is not w for n, w in policy.theta.items())


def test_weights_that_stay_the_bases_are_in_memory_once(base):
    """theta and the merged copy share them; what is trained or merged into is their own."""
    policy = Policy(base, AdapterConfig(rank=3, alpha=6.0, targets="attention"), True, seed=0)
    origin, merged = dict(base.named_parameters()), dict(policy.merged(policy.theta).named_parameters())
    own = {n for n, p in merged.items() if p is not origin[n]}
    encoder = {n for n in origin if n.startswith("action_encoder.")}
    assert own == encoder | {f"unet.{n}.weight" for n in target_modules(base.unet, AdapterConfig(targets="attention"))}
    shared = {id(p) for p in policy.model.parameters()} & {id(p) for p in origin.values()}
    assert len(shared) == len(origin) - len(encoder)


@pytest.mark.parametrize("targets", TARGETS)
def test_merged_weights_predict_what_the_adapter_predicts(base, targets):
    policy = moved(base, targets)
    expected = predict(policy.model)
    torch.testing.assert_close(predict(policy.merged(policy.theta)), expected, rtol=1e-5, atol=1e-5)
    assert (expected - predict(base)).abs().max() > 0.01
    assert torch.equal(predict(policy.merged(policy.old)), predict(base))  # merging leaves nothing behind


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("targets", TARGETS)
def test_theta_through_merged_weights_is_theta_through_layers(base, targets, checkpointing):
    """The same names, start, predictions and gradients; nothing of the base is copied or trained."""
    lora = AdapterConfig(rank=3, alpha=6.0, targets=targets)
    layers = Policy(base, lora, True, seed=0)
    merged = Policy(base, lora, True, 0, PostTrainingCompute(merged_adapter=True, gradient_checkpointing=checkpointing))
    assert list(merged.theta) == list(layers.theta)
    assert {id(p) for p in base.unet.parameters()} <= {id(p) for p in merged.model.unet.parameters()}
    rng = torch.Generator().manual_seed(1)
    for name, weight in layers.theta.items():
        assert torch.equal(merged.theta[name], weight)
        with torch.no_grad():
            weight += 0.05 * torch.randn(weight.shape, generator=rng)
            merged.theta[name].copy_(weight)
    x_sigma, sigma, condition = inputs(base)
    for policy in (layers, merged):
        x0 = policy.model.predict_x0(x_sigma, sigma, policy.model.context(condition))
        (x0**2).mean().backward()
    torch.testing.assert_close(predict(merged.model), predict(layers.model), rtol=1e-5, atol=1e-5)
    assert not any(p.requires_grad or p.grad is not None for p in base.parameters())
    for name, weight in layers.theta.items():
        scale = weight.grad.abs().max().item()
        torch.testing.assert_close(merged.theta[name].grad, weight.grad, rtol=1e-3, atol=1e-4 * scale + 1e-7)


def test_merged_weights_are_summed_in_float32_under_autocast(base):
    policy = Policy(base, SETTINGS.lora, True, seed=0, compute=PostTrainingCompute(merged_adapter=True))
    layer = policy.model.unet.conv_in
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.weight.dtype == torch.float32
        assert layer(torch.zeros(1, layer.in_channels, 4, 4)).dtype == torch.bfloat16


def test_what_is_trained(base):
    """Paper, section 4: LoRA on the U-Net and the action encoder; nothing else asks for a gradient."""
    policy = Policy(base, SETTINGS.lora, True, seed=0)
    adapters = {n for n in policy.theta if n.startswith("unet.") and ".lora_" in n}
    encoder = {f"action_encoder.{n}" for n, _ in base.action_encoder.named_parameters()}
    assert policy.theta.keys() == adapters | encoder
    assert len(adapters) == 2 * len(target_modules(base.unet, SETTINGS.lora))
    assert not any(p.requires_grad for p in base.parameters())
    frozen = Policy(base, SETTINGS.lora, False, seed=0)
    assert frozen.theta.keys() == adapters


def test_target_modules(base):
    """Attention's four projections, without query and key of the cross-attention, which has one token to look at."""
    kinds = {n: m for n, m in base.unet.named_modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d)}
    blind = {n for n in kinds if n.endswith(("attn2.to_q", "attn2.to_k"))}
    attention, linear, every = (set(target_modules(base.unet, AdapterConfig(targets=t))) for t in TARGETS)
    assert blind and every == kinds.keys() - blind
    assert linear == {n for n in every if isinstance(kinds[n], nn.Linear)}
    assert attention == {n for n in linear if ".attn" in n} and attention < linear < every


def test_excluded_modules_stay_as_they_are(base):
    """Parts of names: `.transformer_blocks.0.attn2` is the spatial cross-attention, not the temporal one."""
    every = target_modules(base.unet, SETTINGS.lora)
    lora = dataclasses.replace(SETTINGS.lora, exclude=("conv_out", ".transformer_blocks.0.attn2"))
    gone = {*every} - {*target_modules(base.unet, lora)}
    assert "conv_out" in gone and any("attn2" in name for name in gone) and not any("temporal" in name for name in gone)
    policy = Policy(base, lora, True, seed=0)
    assert not any(name.startswith("unet.conv_out.") for name in policy.theta)
    with refused("post_training.lora.exclude = conv_uot"):
        target_modules(base.unet, dataclasses.replace(lora, exclude=("conv_out", "conv_uot")))
    with refused("post_training.lora.exclude"):
        target_modules(base.unet, dataclasses.replace(lora, exclude=("",)))



@pytest.fixture(scope="module")
def folders(base, tmp_path_factory):
    """checkpoints/base and checkpoints/post_trained, and the policy that the latter was saved from."""
    root = tmp_path_factory.mktemp("checkpoints")
    save_world_model(base, root / "base")
    policy = moved(base)
    save_adapter(policy.theta, base, root / "base", root / "post_trained", [SETTINGS], seed=5)
    return root, policy


def test_checkpoint_round_trip(base, folders):
    """The public loader, on both kinds of folder."""
    root, policy = folders
    assert torch.equal(predict(load_world_model(root / "base")), predict(base))
    loaded = load_world_model(root / "post_trained")
    assert torch.equal(predict(loaded), predict(policy.merged(policy.theta)))
    assert loaded.views == VIEWS and loaded.config == SIZES and loaded.statistics == base.statistics
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    manifest = read_json(root / "post_trained" / "manifest.json")
    assert manifest["seed"] == 5 and manifest["params"] == digest(SETTINGS)
    assert manifest["parents"] == {"base": sha256(root / "base" / WEIGHTS)}
    assert manifest["files"].keys() == {ADAPTER_WEIGHTS, ADAPTER_CONFIG, ACTION_ENCODER}


def test_an_untrained_action_encoder_is_the_bases(base, folders, tmp_path):
    root, _ = folders
    policy = moved(base, train_action_encoder=False)
    save_adapter(policy.theta, base, root / "base", tmp_path / "run", [SETTINGS], seed=0)
    loaded = load_world_model(tmp_path / "run", root / "base")
    assert torch.equal(predict(loaded), predict(policy.merged(policy.theta)))


def test_half_a_base_is_enough(base, folders, tmp_path):
    """A shipped base is stored in float16; its adapter is merged in float32."""
    save_world_model(base, tmp_path / "base", half=True)
    policy = moved(load_world_model(tmp_path / "base"))
    save_adapter(policy.theta, base, tmp_path / "base", tmp_path / "run", [SETTINGS], seed=0)
    assert torch.equal(predict(load_world_model(tmp_path / "run")), predict(policy.merged(policy.theta)))


def test_another_base_is_refused(folders, tmp_path):
    root, _ = folders
    save_world_model(make_model(9), tmp_path / "base")
    with refused("world_model.safetensors"):
        load_world_model(root / "post_trained", tmp_path / "base")


def test_a_missing_base_is_one_line(folders, tmp_path):
    with refused(tmp_path / "nowhere"):
        load_world_model(folders[0] / "post_trained", tmp_path / "nowhere")


def _without(name: str):
    return lambda tensors: tensors.pop(name)


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        (ADAPTER_WEIGHTS, _without("base_model.model.conv_in.lora_B.weight"), (1, "unet.conv_in.lora_B.weight")),
        (ADAPTER_WEIGHTS, dict.clear, ()),
        (ADAPTER_WEIGHTS, lambda t: t.update(extra=torch.zeros(1)), (1, "unet.extra")),
        (ADAPTER_WEIGHTS, lambda t: t.update({"base_model.model.conv_in.lora_A.weight": torch.zeros(2)}), (1, "conv_in.lora_A.weight")),
        (ACTION_ENCODER, lambda t: t.popitem(), (1, "action_encoder.")),
        (ADAPTER_CONFIG, _without("r"), ("r",)),
        (ADAPTER_CONFIG, lambda c: c["target_modules"].append("conv_inn"), ("conv_inn",)),
        (MANIFEST, _without("parents"), ("parents",)),
    ],
)
def test_an_adapter_that_is_not_whole_or_another_models_is_refused(folders, tmp_path, file, change, named):
    """Without this a missing pair would be no adaptation, and the base be scored as the post-trained model."""
    root, _ = folders
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "post_trained" / file
    content = read_tensors(path) if path.suffix == ".safetensors" else read_json(path)
    change(content)
    (write_tensors if path.suffix == ".safetensors" else lambda c, p: write_json(p, c))(content, path)
    with refused(tmp_path / "post_trained" / file, *named):
        load_world_model(tmp_path / "post_trained")


def test_peft_itself_loads_the_adapter(base, folders):
    """The files are peft's own format: its loader puts the same weights at the same places."""
    root, policy = folders
    unet = peft.PeftModel.from_pretrained(copy.deepcopy(base.unet), str(root / "post_trained"))
    other = copy.deepcopy(base)
    other.unet = unet
    other.action_encoder.load_state_dict(policy.model.action_encoder.state_dict())
    torch.testing.assert_close(predict(other), predict(policy.model), rtol=1e-6, atol=1e-6)
