"""One process of test_distributed.py: trains the tiny world model in all three ways, takes up what one process began, and shares the
stages of a folder; it writes what came out."""

import contextlib
import dataclasses
import os
import sys
from pathlib import Path

import torch
from made_up import stages
from test_post_training import DyingStore, Killed
from tiny import FRAMES, HISTORY_INDEX, INSTRUCTIONS, ROLLOUT, SAMPLER, SIZES, VIEWS, make_model

from persistworld.config.compute import BaseTrainingCompute, PostTrainingCompute
from persistworld.config.post_training import AdapterConfig, PostTrainingConfig, RewardConfig
from persistworld.config.training import BaseTrainingConfig, ControlConfig, OptimizerConfig
from persistworld.data.latents import LatentStore
from persistworld.data.manifest import Entry
from persistworld.data.windows import WindowSource
from persistworld.evaluation.perceptual import PerceptualDistance
from persistworld.evaluation.segmentation_backbone import SegmentationBackbone
from persistworld.post_training.cost import control_steps
from persistworld.post_training.rewards import RewardModel
from persistworld.post_training.targets import decoded_images
from persistworld.post_training.trainer import Data, train
from persistworld.runtime.distributed import (
    average_gradients,
    collected,
    gathered,
    mean_over_processes,
    own_groups,
    own_part,
    own_share,
    processes,
)
from persistworld.runtime.errors import UserError
from persistworld.runtime.randomness import generator
from persistworld.training.control import train_control
from persistworld.training.loss import draw
from persistworld.training.state import load_state
from persistworld.training.teacher_forcing import accumulate_gradient, draw_batch, train_world_model
from persistworld.world_model.autoencoder import Autoencoder

TRAINING = BaseTrainingConfig(
    steps=3,
    batch=4,
    optimizer=OptimizerConfig(name="adamw", learning_rate=1e-3),
    weight_ema=0.5,
    precision="float32",
    frame_skips=(1,),
)
# Three groups on two processes: one gets two of them.
POST_TRAINING = PostTrainingConfig(
    steps=2,
    groups=3,
    candidates=3,
    keep=1,
    prefix=(0, 1),
    sampler=SAMPLER,
    kl_weight=0.1,
    reward=RewardConfig(target="decoded"),
    lora=AdapterConfig(rank=2, alpha=2.0),
    optimizer=OptimizerConfig(name="adamw", learning_rate=1e-3),
    precision="float32",
)

COMPUTE = PostTrainingCompute(train_batch=2, save_every=1)

RUNS = {"post_training": POST_TRAINING, "streams": dataclasses.replace(POST_TRAINING, streams=True, kl_prefix=0)}
CONTROLLED = dataclasses.replace(POST_TRAINING, steps=1)  # four steps, of four windows each
CONTROL = ControlConfig(batch=TRAINING.batch)
READS = 2 * TRAINING.batch  # of latents in a step of base training or of the control: a history and a future each
SHARED_STAGES = ("latents --shard 0", "latents --shard 1", "manifest", "truth", "masks", "scores --model copy_frame")
EPISODES = [Entry(i, "train", words, None, FRAMES) for i, words in enumerate(INSTRUCTIONS)]


def windows(store: LatentStore) -> WindowSource:
    return WindowSource(store, EPISODES, HISTORY_INDEX)


def post_train(store: LatentStore, run_folder: Path, settings: PostTrainingConfig) -> torch.Tensor:
    """The trained weights, flat; the log is in `run_folder`."""
    torch.manual_seed(1)
    autoencoder = Autoencoder(SIZES.autoencoder).eval().requires_grad_(False)
    perceptual = PerceptualDistance(SegmentationBackbone((4, 4, 8, 8)))
    reward_model = RewardModel(autoencoder, perceptual, settings.reward, VIEWS, 7, "float32")
    data = Data(store, EPISODES, decoded_images(store, reward_model.decode))
    return flat(train(make_model(3), reward_model, data, settings, ROLLOUT, 0, run_folder, "digest", COMPUTE))


def train_base(store: LatentStore, run_folder: Path) -> torch.Tensor:
    """The trained weights, flat."""
    start = make_model(3).requires_grad_(True)
    compute = BaseTrainingCompute(save_every=1)
    return flat(train_world_model(start, windows(store), TRAINING, 0, run_folder, compute).state_dict())


def train_controlled(store: LatentStore, run_folder: Path) -> torch.Tensor:
    """The trained weights, flat; the log is in `run_folder`."""
    model = make_model(3)
    steps = control_steps(CONTROLLED, CONTROL.batch)
    settings = (CONTROLLED, TRAINING, CONTROL)
    return flat(train_control(model, windows(store), *settings, steps, 0, run_folder, "digest", COMPUTE))


TEACHER_FORCED = {"base": train_base, "control": train_controlled}


def killed(run: str, latents: str, run_folder: Path, steps: int) -> None:
    """Leave what `base` or `control` has on disk when it is killed in the step after `steps`."""
    with contextlib.suppress(Killed):
        TEACHER_FORCED[run](DyingStore(latents, READS * steps + 1), run_folder)
        raise AssertionError("nothing was left to kill")


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([w.flatten() for w in weights.values()])


def first_step(store: LatentStore) -> dict:
    """The loss of the first batch and its averaged gradient."""
    model = make_model(3).requires_grad_(True)
    batch, sentences = draw_batch(model, windows(store), TRAINING, generator(0))
    loss = accumulate_gradient(model, batch, sentences, draw(batch.history, batch.future, TRAINING, generator(1)), TRAINING, TRAINING.batch)
    average_gradients(model.parameters())
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return {"loss": mean_over_processes(loss), "gradient": gradient}


def refusals(folder: Path) -> list[str]:
    """What two processes are told that cannot share a batch or groups, have states of their own, or run something else."""
    rank = processes().process_index
    asked = (
        lambda: own_share(5, "base_training.batch"),
        lambda: own_groups(1),
        lambda: load_state(folder / ("begun" if rank == 0 else "elsewhere") / "control", "digest"),
        lambda: load_state(folder / "begun/control", f"digest {rank}"),
    )
    said = []
    for ask in asked:
        try:
            ask()
        except UserError as error:
            said.append(str(error))
    return said


def main(latents: str, folder: Path) -> dict:
    """In `folder`: `begun`, runs that one process began; `left`, to be left for one to end; `shared/clone`, for the stages."""
    torch.set_num_threads(1)
    store, told = LatentStore(latents), refusals(folder)
    ended = {run: train_it(store, folder / "begun" / run) for run, train_it in TEACHER_FORCED.items()}
    ended["streams"] = post_train(store, folder / "begun/streams", RUNS["streams"])
    for run in TEACHER_FORCED:
        killed(run, latents, folder / "left" / run, steps=2)
    trained = [post_train(store, folder / "left" / name, settings) for name, settings in RUNS.items()]
    found = first_step(store) | {
        "processes": processes().num_processes,
        "refused": told,
        "ended": ended,
        "post_trained": torch.cat(trained),
        "gathered": gathered(list(range(5))[own_part(5)]),
        "collected": collected(list(range(5))[own_part(5)]),
    }
    os.chdir(folder / "shared/clone")
    for stage in SHARED_STAGES:
        if stage != "manifest" or processes().is_main_process:  # which is not shared
            stages(stage)
        processes().wait_for_everyone()
    return found


if __name__ == "__main__":
    result = main(sys.argv[1], Path(sys.argv[2]))
    torch.save(result, Path(sys.argv[2]) / f"result-{os.environ['RANK']}.pt")
