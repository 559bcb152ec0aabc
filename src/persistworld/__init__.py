"""Post-train action-conditioned robot world models on their own rollouts.

    model = persistworld.load_world_model("checkpoints/post_trained")
    latents = persistworld.rollout(model, starts, poses, episodes, seed, settings)

    env = persistworld.make_env("checkpoints/post_trained")

The names are loaded on first use, so that importing the package (and `persistworld --help`) does not import torch. Imported after
gymnasium, it registers the environments there.
"""

import sys
from typing import Any

if "gymnasium" in sys.modules:  # imported before this package; `persistworld --help` must not import it
    from persistworld.rollouts.registration import register

    register()

__all__ = ["load_world_model", "make_env", "rollout"]


def __getattr__(name: str) -> Any:
    if name == "load_world_model":
        from persistworld.checkpoints.adapters import load_world_model

        return load_world_model
    if name == "make_env":
        from persistworld.rollouts.making import make_env

        return make_env
    if name == "rollout":
        from persistworld.rollouts.evaluation import rollout

        return rollout
    raise AttributeError(f"module 'persistworld' has no attribute {name!r}")
