"""Everything that enters a model is brought to it. No GPU is needed: the meta device holds shapes alone, and mixing it with the CPU is an
error as it is between GPU and CPU.
"""

import copy
import dataclasses

import pytest
import torch
from tiny import ROLLOUT, SAMPLER, VIEWS

from persistworld.config.compute import PostTrainingCompute
from persistworld.config.post_training import AdapterConfig, PostTrainingConfig, RewardConfig
from persistworld.config.training import BaseTrainingConfig
from persistworld.post_training.groups import branch_candidates, empty_rollouts, plan_groups, roll_prefixes
from persistworld.post_training.rewards import RewardModel
from persistworld.post_training.targets import decoded_images
from persistworld.post_training.trainer import Data, keep_candidates, score_groups
from persistworld.rollouts.evaluation import rollout
from persistworld.rollouts.starts import poses_after, starts_of
from persistworld.runtime.distributed import device, on_device
from persistworld.runtime.randomness import generator
from persistworld.training.loss import draw
from persistworld.training.policy import Policy
from persistworld.training.teacher_forcing import accumulate_gradient, draw_batch
from persistworld.world_model.autoencoder import Autoencoder
from persistworld.world_model.model import WorldModel

SETTINGS = PostTrainingConfig(
    groups=2, candidates=3, keep=0, prefix=(0, 1), sampler=SAMPLER, precision="float32",
    reward=RewardConfig(credit="cell", target="decoded"), lora=AdapterConfig(rank=2, alpha=2.0),
)  # fmt: skip
TRAINING = BaseTrainingConfig(batch=3, frame_skips=(1,), history_rule="buffer", precision="float32")


def elsewhere(module):
    return copy.deepcopy(module).to("meta")


@pytest.fixture(scope="module")
def model(base) -> WorldModel:
    return elsewhere(base)


@pytest.fixture(scope="module")
def decoder(autoencoder) -> Autoencoder:
    return elsewhere(autoencoder)


def test_without_an_accelerator_it_is_the_cpu():
    assert device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_batch_that_is_there_stays_what_it_is(base, windows):
    batch, _ = draw_batch(base, windows, TRAINING, generator(0))
    there = on_device(batch, torch.device("cpu"))
    assert there.history is batch.history and there.episodes == batch.episodes
    assert on_device(batch, torch.device("meta")).poses.device.type == "meta"


def test_rollouts(model, store, entries):
    starts = starts_of(model, store, entries[:2])
    assert {t.device.type for t in (starts.first, starts.text)} == {"meta"}
    found = rollout(model, starts, poses_after(store, entries[:2], 8), [0, 1], 0, dataclasses.replace(ROLLOUT, chunks=2))
    assert found.shape == (2, 9, 4, 12, 4) and found.device.type == "meta"


@pytest.mark.parametrize("credit", ["clip", "view_frame", "cell"])
def test_a_post_training_step(model, decoder, perceptual, store, entries, credit):
    """Prefix, branch, reward and what the update is made of, down to the predictions."""
    settings = dataclasses.replace(SETTINGS, reward=dataclasses.replace(SETTINGS.reward, credit=credit))
    policy = Policy(model, settings.lora, True, seed=0, compute=PostTrainingCompute(gradient_checkpointing=True))
    plan = plan_groups(entries, settings, 5, 0, 0, settings.groups)
    rollouts = empty_rollouts(policy.merged(policy.theta), settings, ROLLOUT)
    roll_prefixes(rollouts, store, plan, 0, 0)
    samples = branch_candidates(rollouts, store, plan, settings, 0, 0)
    reward_model = RewardModel(decoder, elsewhere(perceptual), settings.reward, VIEWS, 7, "float32")
    rewards = score_groups(reward_model, Data(store, entries, decoded_images(store, reward_model.decode)), plan, samples)
    kept = keep_candidates(samples, rewards, settings, 0, 0)
    on_meta = (kept.x0, kept.r, kept.sigma, kept.noise, kept.condition.history, kept.condition.poses, kept.condition.text)
    assert {t.device.type for t in on_meta} == {"meta"}
    x0 = policy.model.predict_x0(kept.x0 + kept.noise, kept.sigma, policy.model.context(kept.condition))
    x0.sum().backward()
    assert {p.grad.device.type for p in policy.theta.values() if p.grad is not None} == {"meta"}


def test_teacher_forcing(model, windows):
    model = copy.deepcopy(model).requires_grad_(True)
    batch, sentences = draw_batch(model, windows, TRAINING, generator(0))
    draws = draw(batch.history, batch.future, TRAINING, generator(1))
    assert accumulate_gradient(model, batch, sentences, draws, TRAINING, part=2).device.type == "meta"
    assert {p.grad.device.type for p in model.parameters() if p.grad is not None} == {"meta"}


def test_the_autoencoder_takes_what_comes(decoder):
    images, noise = torch.zeros(2, 3, 16, 16), torch.zeros(2, 4, 4, 4)
    latents = decoder.encode(images, noise)
    assert latents.device.type == decoder.decode(noise).device.type == "meta"
