"""Registers the environments with gymnasium. `import persistworld` after `import gymnasium` calls it."""

import gymnasium

WORLD_MODEL, TABLETOP = "persistworld/WorldModel-v0", "persistworld/Tabletop-v0"


def register() -> None:
    """Add the environments to gymnasium's registry, once."""
    if WORLD_MODEL not in gymnasium.registry:
        making = "persistworld.rollouts.making"
        gymnasium.register(WORLD_MODEL, entry_point=f"{making}:make_env", vector_entry_point=f"{making}:make_env")
        gymnasium.register(TABLETOP, entry_point="persistworld.simulator.environment:TabletopEnv")
