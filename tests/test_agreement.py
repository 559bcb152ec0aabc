"""What the gradients of different episodes have in common, by hand and on a tiny model."""

import pytest
import torch
from made_up import make_clone, stages
from tiny import ROLLOUT, SAMPLER, VIEWS

from persistworld.config.post_training import PostTrainingConfig, RewardConfig
from persistworld.post_training import agreement as module
from persistworld.post_training.agreement import Agreement, agreement, agreements, joined
from persistworld.post_training.rewards import RewardModel
from persistworld.post_training.targets import decoded_images
from persistworld.post_training.trainer import Data

REWARD = RewardConfig(credit="latent")
SETTINGS = PostTrainingConfig(candidates=2, keep=0, prefix=(0, 1), sampler=SAMPLER, shared_noise=True, reward=REWARD)


def test_by_hand():
    """Two groups of one episode, which agree wholly, and one of another, at 60 degrees to them."""
    gradients = torch.tensor([[2.0, 0.0], [2.0, 0.0], [1.0, 3.0**0.5]])
    episodes = torch.tensor([7, 7, 9])
    found = agreement("a", gradients, episodes[:, None] != episodes)
    assert found.common == pytest.approx(2) and found.squared == pytest.approx(4) and found.share == pytest.approx(0.5)
    assert found.weights == 2 and Agreement("b", 0.0, 0.0, 1).share == 0


def test_parts_of_a_name_are_added_up():
    found = [Agreement("a.b.x", 1.0, 4.0, 10), Agreement("c", 1.0, 1.0, 1), Agreement("a.b.y", 2.0, 2.0, 5)]
    assert joined(found, 2) == [Agreement("a.b", 3.0, 6.0, 15), Agreement("c", 1.0, 1.0, 1)]
    assert joined(found, 9) == found


def test_gradients_are_those_of_the_loss_at_the_base(base, autoencoder, perceptual, store, entries, monkeypatch):
    """A group's squared length is that of its own gradient, taken alone; the base is left as it was."""
    data = Data(store, entries, decoded_images(store, None))
    reward_model = RewardModel(autoencoder, perceptual, SETTINGS.reward, VIEWS, 7, "float32")
    lone = []
    loss = module.group_loss

    def watched(*arguments):
        found = loss(*arguments)
        [gradient] = torch.autograd.grad(found, [base.unet.conv_in.weight], retain_graph=True)
        lone.append(gradient.flatten())
        return found

    monkeypatch.setattr(module, "group_loss", watched)
    found = {each.name: each for each in agreements(base, reward_model, data, SETTINGS, ROLLOUT, 0, groups=4)}
    groups = torch.stack(lone).unflatten(0, (4, module.DRAWS)).sum(dim=1)
    assert found["unet.conv_in.weight"].squared == pytest.approx(groups.square().sum(dim=1).mean().item(), rel=1e-4)
    assert any(name.startswith("action_encoder.") for name in found) and not any(name.startswith("text_encoder.") for name in found)
    assert not any(p.requires_grad or p.grad is not None for p in base.parameters())


def test_the_command_prints_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(make_clone(tmp_path))
    stages("episodes", "base_checkpoint", "latents --shard 0", "latents --shard 1", "manifest", "agreement --groups 3 --depth 2")
    table = capsys.readouterr().out
    assert "| `unet.mid_block` |" in table and "| `action_encoder." in table
