"""Teacher forcing: the loss in closed form, what is drawn, and that a killed run ends with the same bytes."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from refusals import refused
from tiny import HISTORY_INDEX, SIZES, make_model

from persistworld.checkpoints.folders import save_world_model
from persistworld.config.compute import BaseTrainingCompute
from persistworld.config.data import EpisodesConfig
from persistworld.config.params import Params
from persistworld.config.training import BaseTrainingConfig, OptimizerConfig
from persistworld.data.manifest import Manifest
from persistworld.data.windows import WindowSource
from persistworld.runtime.randomness import generator
from persistworld.stages.base_training import continued_model, make_autoencoder, run_name
from persistworld.training.autoencoder import train_autoencoder
from persistworld.training.loss import Draws, condition, draw, teacher_forcing_loss
from persistworld.training.teacher_forcing import accumulate_gradient, draw_batch, train_world_model, training_loss
from persistworld.world_model.autoencoder import Autoencoder
from persistworld.world_model.poses import pose_statistics
from persistworld.world_model.views import images_to_float

TRAINING = BaseTrainingConfig(
    steps=3,
    batch=2,
    optimizer=OptimizerConfig(name="muon", learning_rate=1e-3, decay_from=0.6),
    warmup=2,
    weight_ema=0.9,
    precision="float32",
    frame_skips=(1, 2),
)


@pytest.fixture
def latents() -> tuple[torch.Tensor, torch.Tensor]:
    """history (3, 6, 4, 12, 4), future (3, 5, 4, 12, 4)."""
    rng = torch.Generator().manual_seed(0)
    return torch.randn(3, 6, 4, 12, 4, generator=rng), torch.randn(3, 5, 4, 12, 4, generator=rng)


@pytest.fixture
def draws(latents) -> Draws:
    return draw(*latents, TRAINING, torch.Generator().manual_seed(1))


def test_loss_in_closed_form(base, latents, draws):
    """A network that answers 0 predicts c_skip x_sigma; its weighted error is (n - sigma x0)^2 / (sigma^2 + 1)."""
    model = copy.deepcopy(base)
    torch.nn.init.zeros_(model.unet.conv_out.weight)
    torch.nn.init.zeros_(model.unet.conv_out.bias)
    history, future = latents
    sigma = draws.sigma.reshape(-1, 1, 1, 1, 1)
    expected = ((draws.noise - sigma * future) ** 2 / (sigma**2 + 1)).mean()
    found = teacher_forcing_loss(model, history, future, torch.zeros(3, 11, 32), draws)
    torch.testing.assert_close(found, expected)


def test_loss_is_taken_of_the_networks_output(base, latents, draws):
    """The same loss as mean squared error between the network's output and its target (x0 - c_skip x_sigma) / c_out."""
    history, future = latents
    tokens = base.action_encoder(torch.rand(3, 11, 10))
    sigma = draws.sigma.reshape(-1, 1, 1, 1, 1)
    x_sigma = future + sigma * draws.noise
    context = condition(history, future[:, 0], tokens, draws)
    x0_hat = base.predict_x0(x_sigma, draws.sigma, context)
    c_out = -sigma / (sigma**2 + 1).sqrt()
    output, target = ((x - x_sigma / (sigma**2 + 1)) / c_out for x in (x0_hat, future))
    found = teacher_forcing_loss(base, history, future, tokens, draws)
    torch.testing.assert_close(found, (output - target).square().mean(), rtol=1e-4, atol=1e-5)


def test_condition_by_hand(latents):
    """History noised and rescaled with a signed sigma_h, current frame noised only, tokens kept or dropped."""
    history, future = latents
    ones = torch.ones_like
    draws = Draws(
        sigma=torch.ones(3),
        noise=ones(future),
        history_sigma=torch.tensor([0.0, 0.75, -0.75]),
        history_noise=ones(history),
        current_sigma=torch.tensor([0.0, 0.1, 0.2]),
        current_noise=ones(future[:, 0]),
        keep_action=torch.tensor([1.0, 0.0, 1.0]),
    )
    tokens = torch.rand(3, 11, 32)
    found = condition(history, future[:, 0], tokens, draws)
    assert torch.equal(found.history[0], history[0])
    noised = history[1:] + torch.tensor([0.75, -0.75]).reshape(2, 1, 1, 1, 1)
    torch.testing.assert_close(found.history[1:], noised / 1.25)
    torch.testing.assert_close(found.current, future[:, 0] + torch.tensor([0.0, 0.1, 0.2]).reshape(3, 1, 1, 1))
    assert torch.equal(found.tokens[::2], tokens[::2]) and not found.tokens[1].any()


def test_draws_have_ctrl_worlds_distributions():
    """Ctrl-World: ln sigma ~ N(0.7, 1.6^2); sigma_h = 0.3 randn; current ~ U(0, 0.2); 5 % of actions dropped."""
    small = torch.zeros(20_000, 1, 1, 1, 1)
    draws = draw(small, small, BaseTrainingConfig(), torch.Generator().manual_seed(0))
    assert draws.sigma.log().mean().item() == pytest.approx(0.7, abs=0.05)
    assert draws.sigma.log().std().item() == pytest.approx(1.6, abs=0.05)
    assert draws.history_sigma.mean().item() == pytest.approx(0, abs=0.01)
    assert draws.history_sigma.std().item() == pytest.approx(0.3, abs=0.01)
    assert 0 <= draws.current_sigma.min() < 0.001 and 0.199 < draws.current_sigma.max() < 0.2
    assert draws.keep_action.unique().tolist() == [0, 1]
    assert draws.keep_action.mean().item() == pytest.approx(0.95, abs=0.01)


def test_a_share_of_a_batch_has_its_own_draws(latents, draws):
    rows = draws.take(slice(1, 3))
    assert torch.equal(rows.sigma, draws.sigma[1:]) and torch.equal(rows.history_noise, draws.history_noise[1:])
    assert len(rows.keep_action) == 2


def test_batches_are_windows_of_one_episode_each(base, store, entries, windows):
    batch, sentences = draw_batch(base, windows, TRAINING, generator(0, "base_training", 0))
    again, _ = draw_batch(base, windows, TRAINING, generator(0, "base_training", 0))
    assert torch.equal(batch.future, again.future) and batch.episodes == again.episodes
    for row, episode in enumerate(batch.episodes):
        assert sentences[row] == entries[episode].instruction
        whole = store.latents(episode)
        for frame in (*batch.history[row], *batch.future[row]):
            assert (whole == frame).flatten(1).all(dim=1).any()


def train(store, entries, folder, training=TRAINING, seed=0, **compute):
    model = make_model(3).requires_grad_(True)
    compute = BaseTrainingCompute(**{"save_every": 1} | compute)
    return train_world_model(model, WindowSource(store, entries, HISTORY_INDEX), training, seed, folder, compute)


def test_a_killed_run_ends_with_the_same_bytes(store, entries, latent_folder, tmp_path):
    """3 steps == 2, a kill in the third, and 1 more."""
    from test_post_training import DyingStore, Killed

    whole = train(store, entries, tmp_path / "whole")
    with pytest.raises(Killed):
        train(DyingStore(latent_folder, 2 * 4 + 3), entries, tmp_path / "killed")  # a step reads 2 x 2
    assert [p.name for p in (tmp_path / "killed").glob("state-*")] == ["state-00000002.pt"]
    resumed = train(store, entries, tmp_path / "killed")
    assert all(torch.equal(w, resumed.state_dict()[n]) for n, w in whole.state_dict().items())
    assert not whole.training and not any(p.requires_grad for p in whole.parameters())


def test_other_parameters_are_not_resumed(store, entries, tmp_path):
    """Neither other keys of the section, nor another seed or other episodes."""
    one = dataclasses.replace(TRAINING, steps=1)
    train(store, entries, tmp_path, one)
    train(store, entries, tmp_path, one)  # done already: nothing to do
    others = (
        {"training": dataclasses.replace(one, sigma_std=1.0)},
        {"training": one, "seed": 1},
        {"training": one, "entries": entries[:2]},
    )
    for changed in others:
        with refused(tmp_path):
            train(**{"store": store, "entries": entries, "folder": tmp_path} | changed)


def test_the_average_or_the_last_weights(store, entries, tmp_path):
    """The decay rises from 0.1: after one step a tenth of the start is left."""
    one = dataclasses.replace(TRAINING, steps=1)
    average = train(store, entries, tmp_path / "average", one)
    last = train(store, entries, tmp_path / "last", dataclasses.replace(one, weight_ema=0.0))
    start = make_model(3)
    name = "unet.conv_in.weight"
    start, average, last = (m.state_dict()[name] for m in (start, average, last))
    torch.testing.assert_close(average, 0.1 * start + 0.9 * last)
    assert not torch.equal(start, last)


def test_neither_accumulation_nor_checkpointing_changes_the_gradient(windows):
    """Five windows at once, in parts of two and a rest of one, and with activations computed twice."""
    training = dataclasses.replace(TRAINING, batch=5)
    found = []
    for part, checkpointing in ((5, False), (2, False), (2, True)):
        model = make_model(3).requires_grad_(True).train()
        if checkpointing:
            model.unet.enable_gradient_checkpointing()
        batch, sentences = draw_batch(model, windows, training, generator(0))
        loss = accumulate_gradient(model, batch, sentences, draw(batch.history, batch.future, training, generator(1)), training, part)
        found.append((loss, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    whole = found[0][1]
    for loss, gradient in found[1:]:
        torch.testing.assert_close(loss, found[0][0], rtol=1e-5, atol=0)
        torch.testing.assert_close(gradient, whole, rtol=1e-3, atol=1e-5 * whole.abs().max().item())


def test_training_in_parts_takes_the_same_steps(store, entries, windows, tmp_path):
    """A window a backward pass, two of them a step. The difference is rounding."""
    training = dataclasses.replace(TRAINING, optimizer=OptimizerConfig(name="adamw", learning_rate=1e-3))
    model, sizes = make_model(3).requires_grad_(True), []
    model.action_encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    compute = BaseTrainingCompute(train_batch=1, gradient_checkpointing=True)
    found = train_world_model(model, windows, training, 0, tmp_path / "parts", compute)
    assert sizes == 3 * [1, 1] and model.unet.is_gradient_checkpointing
    whole = train(store, entries, tmp_path / "whole", training)
    start, found, whole = (torch.cat([p.flatten() for p in m.parameters()]) for m in (make_model(3), found, whole))
    assert (found - whole).norm() < 0.02 * (whole - start).norm()


def test_the_text_encoder_is_trained_along(windows):
    model = make_model(3).requires_grad_(True)
    batch, sentences = draw_batch(model, windows, TRAINING, generator(0))
    training = dataclasses.replace(TRAINING, action_dropout=0.0)
    accumulate_gradient(model, batch, sentences, draw(batch.history, batch.future, training, generator(1)), training, part=2)
    assert all(p.grad is not None for p in model.text_encoder.clip.text_projection.parameters())
    assert model.action_encoder.action_encode[0].weight.grad.abs().max() > 0


def test_training_lowers_the_loss(store, entries, windows, tmp_path):
    """On fixed windows and draws, after 12 steps on all of them."""
    training = dataclasses.replace(TRAINING, steps=12, batch=4, weight_ema=0.0, warmup=0)
    start = make_model(3)
    batch, sentences = draw_batch(start, windows, training, generator(9))
    end = train(store, entries, tmp_path, training)
    draws = draw(batch.history, batch.future, training, generator(10))
    before, after = (training_loss(slice(None), m, batch, sentences, draws, training).item() for m in (start, end))
    assert after < 0.9 * before


def test_autoencoder_has_latents_of_unit_variance_and_is_reproducible():
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 255, (40, 4, 4, 3), dtype=np.uint8))
    frames = frames.repeat_interleave(4, 1).repeat_interleave(4, 2)
    training = dataclasses.replace(TRAINING, autoencoder_steps=3, autoencoder_batch=4)
    found = [train_autoencoder(frames, SIZES.autoencoder, training, seed=0) for _ in range(2)]
    assert all(torch.equal(w, found[1].state_dict()[n]) for n, w in found[0].state_dict().items())
    latents = found[0].encode(images_to_float(frames))
    assert latents.std().item() == pytest.approx(1, abs=1e-3) and latents.shape == (40, 4, 4, 4)
    assert found[0].sizes.scaling_factor != SIZES.autoencoder.scaling_factor


def other_robot(numbers: int, rotation: str) -> Manifest:
    """A manifest as far as training goes on looks at it: statistics of poses of so many numbers."""
    poses = np.random.default_rng(0).uniform(-1, 1, (50, numbers))
    return Manifest((), {}, pose_statistics(poses.astype(np.float32), rotation), {})


@pytest.mark.parametrize(("numbers", "rotation", "kept"), [(7, "continuous", True), (7, "euler", False), (14, "euler", False)])
def test_training_goes_on_from_a_checkpoint(tmp_path, autoencoder, numbers, rotation, kept):
    """All weights are the checkpoint's; another width or rotation of poses gets an action encoder and statistics of its own."""
    base = make_model(3)
    save_world_model(base, tmp_path)
    sizes = dataclasses.replace(SIZES, rotation=rotation)
    settings = Params(world_model=sizes, episodes=EpisodesConfig(views=("left", "wrist")))
    manifest = other_robot(numbers, rotation)
    model = continued_model(settings, manifest, tmp_path, autoencoder)
    assert model.views == ("left", "wrist") and all(p.requires_grad for p in model.parameters())
    same = {n for n, w in model.state_dict().items() if n in base.state_dict() and torch.equal(w, base.state_dict()[n])}
    assert {n for n in base.state_dict() if not n.startswith("action_encoder.")} <= same
    assert any(n.startswith("action_encoder.") for n in same) == kept
    assert model.statistics == (base.statistics if kept else manifest.statistics)
    assert model.config.rotation == rotation
    width = len(model.statistics.low)
    assert model.action_encoder(torch.zeros(1, 11, width)).shape == (1, 11, 32)


def test_training_goes_on_with_the_checkpoints_history(tmp_path, autoencoder):
    save_world_model(make_model(3), tmp_path)
    settings = Params(world_model=dataclasses.replace(SIZES, history=4))
    with refused("world_model.history = 4", tmp_path, 6):
        continued_model(settings, other_robot(7, "continuous"), tmp_path, autoencoder)


def test_training_goes_on_under_the_autoencoder_that_made_the_latents(tmp_path):
    """A new one's scaling factor is not the checkpoint's; another number of channels does not fit its weights."""
    save_world_model(make_model(3), tmp_path)
    settings, manifest = Params(world_model=SIZES, episodes=EpisodesConfig(views=("left", "wrist"))), other_robot(7, "continuous")
    scaled = dataclasses.replace(SIZES.autoencoder, scaling_factor=0.5)
    model = continued_model(settings, manifest, tmp_path, Autoencoder(scaled))
    assert model.scaling_factor == 0.5 and model.config.autoencoder == scaled
    with refused("world_model.autoencoder.latent_channels = 8", tmp_path, 4):
        continued_model(settings, manifest, tmp_path, Autoencoder(dataclasses.replace(scaled, latent_channels=8)))


def test_runs_from_other_weights_share_nothing(tmp_path):
    names = set()
    for seed in (3, 4):
        save_world_model(make_model(seed), tmp_path)
        names.add(run_name(Params(base_training=dataclasses.replace(TRAINING, start_from=str(tmp_path))), "data"))
    assert len(names) == 2 and run_name(Params(), "data") not in names
    (tmp_path / "autoencoder.safetensors").touch()  # its latents are what is trained on
    assert run_name(Params(base_training=dataclasses.replace(TRAINING, start_from=str(tmp_path))), "data") not in names
    assert run_name(Params(), "more data") != run_name(Params(), "data")


def test_there_is_no_autoencoder_from_nothing(tmp_path):
    with refused("base_training.autoencoder_steps = 0", "start_from"):
        make_autoencoder(Params(), None, [], tmp_path)


def test_without_a_compiler_it_is_one_line(store, entries, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with refused("compute.base_training.torch_compile = default", "no-such-compiler"):
        train(store, entries, tmp_path, torch_compile="default")


def test_readers_change_nothing(store, entries, tmp_path):
    """Windows and draws made ahead by two processes are those that the trainer makes itself, to the bit; compiled or not."""
    alone = train(store, entries, tmp_path / "alone", TRAINING)
    helped = train(store, entries, tmp_path / "helped", readers=2)
    with torch.compiler.set_stance("force_eager"):  # the compiled U-Net itself: tests/test_compilation.py
        compiled = train(store, entries, tmp_path / "compiled", torch_compile="default")
    for name, expected in alone.state_dict().items():
        assert torch.equal(helped.state_dict()[name], expected) and torch.equal(compiled.state_dict()[name], expected), name


@pytest.mark.parametrize("readers", [0, 2])
def test_an_episode_without_latents_is_one_line(store, entries, tmp_path, readers):
    """A reader's error is the trainer's own, without the traceback that it travels with."""
    missing = [dataclasses.replace(entries[0], index=999)]
    with refused("episode 999"):
        train(store, missing, tmp_path, readers=readers)
