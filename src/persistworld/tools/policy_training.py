"""Train the shipped policies' eyes and the judge on simulated scenes, and test them on others.

Needs the simulator and the base checkpoint's autoencoder. Half of the example frames are its reconstructions, because a world model's
frames are not sharper than those. The scenes have other seeds than policies.scenes.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from persistworld.apps.worlds import base_folder
from persistworld.config.params import Params
from persistworld.policies.eyes import save_eyes
from persistworld.policies.judge import save_judge
from persistworld.policies.shipped import SCENES
from persistworld.runtime.files import atomic_path
from persistworld.training.eyes import eyes_errors, eyes_examples, train_eyes
from persistworld.training.judge import JudgeExamples, frame_accuracy, placing_scenes, posed_examples, rollout_examples, train_judge
from persistworld.world_model.autoencoder import decode_views, load_autoencoder
from persistworld.world_model.views import images_to_float, stack_views

OPTIONS = {
    "--output": {"required": True, "metavar": "FOLDER", "help": "gets tabletop_policies/ and tabletop_judge/"},
    "--part": {"choices": ["eyes", "judge"], "help": "train only this (default: both)"},
    "--eyes-steps": {"type": "int", "default": 700, "metavar": "N", "help": "of 48 frames (default: %(default)s)"},
    "--judge-steps": {"type": "int", "default": 2500, "metavar": "N", "help": "of 64 frames (default: %(default)s)"},
    "--rollouts": {"type": "int", "default": 110, "metavar": "N", "help": "for the judge (default: %(default)s)"},
}
EYES_SEED, JUDGE_SEED = 2001, 2002  # of the scenes
EACH, CHUNKS = 8, 9  # frames of a scene for the eyes; length of a rollout for the judge
POSED = 4  # frames of a scene without a rollout
HELD_OUT = 10_000  # first number of the scenes of the tests


def main(params: Params, args: argparse.Namespace) -> None:
    """args: output, part, eyes_steps, judge_steps, rollouts."""
    torch.set_num_threads(args.threads)
    autoencoder, settings = load_autoencoder(base_folder(params)), params.episodes

    @torch.no_grad()
    def decoded(frames: np.ndarray) -> np.ndarray:
        images = images_to_float(torch.from_numpy(frames))
        latents = stack_views(autoencoder.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2]))
        return decode_views(autoencoder, latents, frames.shape[1]).numpy()

    if args.part != "judge":
        most = max(SCENES.values())
        examples = eyes_examples(range(most), EACH, EYES_SEED, settings, decoded)
        test = eyes_examples(range(HELD_OUT, HELD_OUT + 40), EACH, EYES_SEED, settings, decoded)
        eyes = {}
        for name, scenes in SCENES.items():
            eyes[name] = train_eyes(examples.take(np.arange(scenes * EACH)), scenes, args.eyes_steps, params.seed, name)
            errors = eyes_errors(eyes[name], test)
            eyes[name].error = errors["object"]
            places = ", ".join(f"{100 * errors[what]:.1f} cm ({what})" for what in ("object", "goal"))
            print(f"{name}: off by {places}, {errors['yaw']:.2f} rad (yaw of cubes)", flush=True)
        with atomic_path(Path(args.output) / "tabletop_policies") as folder:
            save_eyes(eyes, folder)
    if args.part != "eyes":
        parts = []
        for first, count in ((0, args.rollouts), (HELD_OUT, max(2, args.rollouts // 6))):
            scenes = placing_scenes(first, 3 * count, JUDGE_SEED, settings)
            rollouts = rollout_examples(scenes[:count], CHUNKS, JUDGE_SEED, settings, decoded)
            posed = posed_examples(scenes[count:], POSED, JUDGE_SEED, settings, decoded)
            parts.append(JudgeExamples.join([rollouts, posed]))
        judge = train_judge(parts[0], args.judge_steps, params.seed)
        with atomic_path(Path(args.output) / "tabletop_judge") as folder:
            save_judge(judge, folder)
        right = ", ".join(f"{name} {share:.3f}" for name, share in frame_accuracy(judge, parts[1]).items())
        print(f"judge: right in {len(parts[1].frames)} single frames of other scenes: {right}")
