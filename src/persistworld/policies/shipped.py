"""The policies that ship with the package, and the search for a policy by name."""

import importlib
import sys
from pathlib import Path

from persistworld.policies.eyes import load_eyes
from persistworld.policies.pick_and_place import PickAndPlace, Skill
from persistworld.policies.policy import SIMPLE, Policy
from persistworld.runtime.errors import UserError

EYES = Path("assets/tabletop_policies")
# Names of eyes, and the number of scenes that they learned from.
SCENES = {"eyes_400": 400, "eyes_60": 60, "eyes_20": 20}
# In the order of the skill that one would expect.
SKILLS = {
    "expert": Skill("eyes_400"),
    "looks_once": Skill("eyes_400", looks_once=True, retries=0),
    "misplaces": Skill("eyes_400", misplace=0.06),
    "noisy": Skill("eyes_400", noise=0.015, retries=1),
    "drops_early": Skill("eyes_400", drop_early=0.3),
    "scenes_60": Skill("eyes_60", retries=0),
    "offset": Skill("eyes_400", offset=0.03, retries=0),
    "closes_early": Skill("eyes_400", close_early=0.035, retries=0),
    "scenes_20": Skill("eyes_20", retries=0),
    "wanders": Skill("eyes_400", wanders=True),
}


def shipped_policy(name: str, eyes: str | Path = EYES) -> PickAndPlace:
    """The shipped policy `name`, with the eyes in the folder `eyes`. Raises UserError if they are missing."""
    skill = SKILLS[name]
    return PickAndPlace(load_eyes(eyes, skill.eyes), skill)


def find_policy(name: str, eyes: str | Path = EYES) -> Policy:
    """A shipped policy or one of SIMPLE by its name, or one of your own: `module:name` is called without arguments.

    The working folder is searched for modules, too. Raises UserError if there is no such policy, or the object is not a policy.
    """
    if name in SIMPLE:
        return SIMPLE[name]()
    if name in SKILLS:
        return shipped_policy(name, eyes)
    module, _, attribute = name.partition(":")
    if not attribute:
        known = ", ".join([*SIMPLE, *SKILLS])
        raise UserError(f"policy {name}: no such policy; choose from {known}, or name your own as MODULE:NAME")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        policy = getattr(importlib.import_module(module), attribute)()
    except ModuleNotFoundError as error:
        raise UserError(f"policy {name}: no module {error.name}; start where {module}.py lies, or install it") from None
    except AttributeError as error:
        raise UserError(f"policy {name}: {error}") from None
    lacking = [part for part in ("kind", "rate", "reset", "act") if not hasattr(policy, part)]
    if lacking:
        raise UserError(f"policy {name}: has no {lacking[0]}; docs/bring_your_own_policy.md shows what a policy is")
    return policy
