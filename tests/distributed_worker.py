"""One process of test_distributed.py: trains the tiny world model and lets the first process write what came out."""

import os
import sys
from pathlib import Path

import torch
from conftest import FRAMES, HISTORY_INDEX, INSTRUCTIONS, make_model

from persistworld import params
from persistworld.base_training.trainer import draw_batch, train_world_model, training_loss
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.distributed import average_gradients, mean_over_processes, own_share, processes
from persistworld.errors import UserError
from persistworld.randomness import generator

TRAINING = params.BaseTraining(
    steps=3,
    batch=4,
    optimizer=params.Optimizer(name="adamw", learning_rate=1e-3),
    weight_ema=0.5,
    precision="float32",
    frame_skips=(1,),
    save_every=100,
)


def main(latents: str, run_folder: Path) -> dict:
    """Losses of the first batch, its averaged gradient, and the weights after training."""
    torch.set_num_threads(1)
    store = LatentStore(latents)
    episodes = [Entry(i, "train", words, None, FRAMES) for i, words in enumerate(INSTRUCTIONS)]
    model = make_model(3).requires_grad_(True)
    batch, sentences = draw_batch(model, store, episodes, TRAINING, HISTORY_INDEX, generator(0))
    loss = training_loss(model, batch, sentences, TRAINING, generator(1))
    loss.backward()
    average_gradients(model.parameters())
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    start = make_model(3).requires_grad_(True)
    trained = train_world_model(start, store, episodes, TRAINING, HISTORY_INDEX, 0, run_folder)
    last = training_loss(trained, batch, sentences, TRAINING, generator(1))
    refused = ""
    try:
        own_share(5, "base_training.batch")
    except UserError as error:
        refused = str(error)
    return {
        "losses": torch.stack([mean_over_processes(loss), mean_over_processes(last)]).detach(),
        "gradient": gradient,
        "processes": processes().num_processes,
        "refused": refused,
    }


if __name__ == "__main__":
    result = main(sys.argv[1], Path(sys.argv[2]))
    torch.save(result, Path(sys.argv[2]) / f"result-{os.environ['RANK']}.pt")
