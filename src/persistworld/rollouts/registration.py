"""Registers the environments with gymnasium.

gymnasium calls `register` whenever it is imported (pyproject.toml), so this module imports nothing heavy.
"""

import gymnasium

WORLD_MODEL, TABLETOP = "persistworld/WorldModel-v0", "persistworld/Tabletop-v0"


def register() -> None:
    """Register the environments once."""
    if WORLD_MODEL not in gymnasium.registry:
        making = "persistworld.rollouts.making"
        gymnasium.register(WORLD_MODEL, entry_point=f"{making}:make_env", vector_entry_point=f"{making}:make_env")
        gymnasium.register(TABLETOP, entry_point="persistworld.simulator.environment:TabletopEnv")
