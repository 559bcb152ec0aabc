"""One process of test_distributed.py: trains the tiny world model in all three ways and writes what came out."""

import dataclasses
import os
import sys
from pathlib import Path

import torch
from conftest import FRAMES, HISTORY_INDEX, INSTRUCTIONS, SAMPLER, SIZES, VIEWS, make_model

from persistworld import params
from persistworld.base_training.loss import draw
from persistworld.base_training.trainer import accumulate_gradient, draw_batch, train_world_model, training_loss
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.distributed import average_gradients, gathered, mean_over_processes, own_groups, own_part, own_share, processes
from persistworld.errors import UserError
from persistworld.metrics.perceptual import PerceptualDistance
from persistworld.metrics.segmentation_backbone import SegmentationBackbone
from persistworld.post_training.control import train_control
from persistworld.post_training.rewards import RewardModel
from persistworld.post_training.targets import decoded_images
from persistworld.post_training.trainer import Data, train
from persistworld.randomness import generator
from persistworld.world_model.autoencoder import Autoencoder

TRAINING = params.BaseTraining(
    steps=3,
    batch=4,
    optimizer=params.Optimizer(name="adamw", learning_rate=1e-3),
    weight_ema=0.5,
    precision="float32",
    frame_skips=(1,),
    save_every=100,
)
# Three groups on two processes: one gets two of them. The control: about as many steps, of four windows each.
POST_TRAINING = params.PostTraining(
    steps=2,
    groups=3,
    candidates=3,
    keep=1,
    prefix=(0, 1),
    sampler=SAMPLER,
    kl_weight=0.1,
    reward=params.Reward(target="decoded"),
    lora=params.Lora(rank=2, alpha=2.0),
    optimizer=params.Optimizer(name="adamw", learning_rate=1e-3),
    precision="float32",
    train_batch=2,
    save_every=1,
)


RUNS = {"post_training": POST_TRAINING, "streams": dataclasses.replace(POST_TRAINING, streams=True)}


def post_train(store: LatentStore, episodes: list[Entry], run_folder: Path, settings: params.PostTraining) -> torch.Tensor:
    """The trained weights, flat; the log is in `run_folder`."""
    torch.manual_seed(1)
    autoencoder = Autoencoder(SIZES.autoencoder).eval().requires_grad_(False)
    perceptual = PerceptualDistance(SegmentationBackbone((4, 4, 8, 8)))
    reward_model = RewardModel(autoencoder, perceptual, settings.reward, VIEWS, 7, "float32")
    data = Data(store, episodes, decoded_images(store, reward_model.decode))
    return flat(train(make_model(3), reward_model, data, settings, HISTORY_INDEX, 0, run_folder, "digest"))


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([w.flatten() for w in weights.values()])


def main(latents: str, run_folder: Path) -> dict:
    """Losses of the first batch, its averaged gradient, and the weights after each training."""
    torch.set_num_threads(1)
    store = LatentStore(latents)
    episodes = [Entry(i, "train", words, None, FRAMES) for i, words in enumerate(INSTRUCTIONS)]
    model = make_model(3).requires_grad_(True)
    batch, sentences = draw_batch(model, store, episodes, TRAINING, HISTORY_INDEX, generator(0))
    loss = accumulate_gradient(model, batch, sentences, TRAINING, generator(1), TRAINING.batch)
    average_gradients(model.parameters())
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    start = make_model(3).requires_grad_(True)
    trained = train_world_model(start, store, episodes, TRAINING, HISTORY_INDEX, 0, run_folder)
    draws = draw(batch.history, batch.future, TRAINING, generator(1))
    last = training_loss(slice(None), trained, batch, sentences, draws, TRAINING)
    refused = ""
    try:
        own_share(5, "base_training.batch")
    except UserError as error:
        refused = str(error)
    try:
        own_groups(1)
    except UserError as error:
        refused += "; " + str(error)
    weights = [post_train(store, episodes, run_folder / name, settings) for name, settings in RUNS.items()]
    control = (make_model(3), store, episodes, POST_TRAINING, TRAINING, HISTORY_INDEX, 0, run_folder / "control", "digest")
    return {
        "losses": torch.stack([mean_over_processes(loss), mean_over_processes(last)]).detach(),
        "gradient": gradient,
        "processes": processes().num_processes,
        "refused": refused,
        "post_trained": torch.cat(weights),
        "control": flat(train_control(*control)),
        "gathered": gathered(list(range(5))[own_part(5)]),
    }


if __name__ == "__main__":
    result = main(sys.argv[1], Path(sys.argv[2]))
    torch.save(result, Path(sys.argv[2]) / f"result-{os.environ['RANK']}.pt")
