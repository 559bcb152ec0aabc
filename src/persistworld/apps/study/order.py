"""The random choices of a study: its items, their order, and which model is shown as A. All depend only on the study's seed.

Draws are ranks of SHA-256 digests, so they need no generator state and do not depend on library versions.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def shuffled(items: Iterable[Item], *key: int | str) -> list[Item]:
    """The items (distinct, with a `repr` that tells them apart) in a random order that depends only on `key`."""
    return sorted(items, key=lambda item: hashlib.sha256(repr((key, item)).encode()).digest())


def chosen_pairs(
    episodes: Sequence[int], seeds: Sequence[int], views: Sequence[str], count: int, seed: int
) -> list[tuple[int, int, str]]:
    """`count` (episode, seed, view), or all if 0. Views are balanced, and within a view no episode repeats before all have been used."""
    rounds = []
    for view in views:
        order = shuffled(episodes, seed, "episodes", view)
        by_episode = {episode: shuffled(seeds, seed, "seeds", view, episode) for episode in order}
        rounds.append([(episode, by_episode[episode][turn], view) for turn in range(len(seeds)) for episode in order])
    taken = [item for turn in zip(*rounds, strict=True) for item in turn]
    return taken[:count] if count else taken


def rater_order(items: Sequence[int], seed: int, rater: int) -> list[int]:
    """The items in the order in which a rater sees them."""
    return shuffled(items, seed, "order", rater)


def shown_first(items: Sequence[int], models: tuple[str, str], seed: int, rater: int) -> dict[int, str]:
    """The model that a rater sees as A, for each item. Each is A in half of the items; chance decides an odd last one."""
    mixed = shuffled(items, seed, "side", rater)
    first, second = shuffled(models, seed, "which side", rater)
    return {item: (first, second)[place % 2] for place, item in enumerate(mixed)}
