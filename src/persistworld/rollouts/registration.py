"""gymnasium's registry: it calls `register` whenever it is imported (pyproject.toml), so nothing heavy is imported here."""

import gymnasium

WORLD_MODEL, TABLETOP = "persistworld/WorldModel-v0", "persistworld/Tabletop-v0"


def register() -> None:
    """Tell gymnasium of the environments, once."""
    if WORLD_MODEL not in gymnasium.registry:
        making = "persistworld.rollouts.making"
        gymnasium.register(WORLD_MODEL, entry_point=f"{making}:make_env", vector_entry_point=f"{making}:make_env")
        gymnasium.register(TABLETOP, entry_point="persistworld.simulator.environment:TabletopEnv")
