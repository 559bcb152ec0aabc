"""What is random in a study: which items, in which order, and which model is shown as A. All of it from the study's seed.

Draws are ranks of SHA-256 digests: they need no generator's state, and are the same in every version of every library.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def shuffled(items: Iterable[Item], *key: int | str) -> list[Item]:
    """The items (distinct, with a `repr` that tells them apart) in a random order that depends on `key` alone."""
    return sorted(items, key=lambda item: hashlib.sha256(repr((key, item)).encode()).digest())


def chosen_pairs(
    episodes: Sequence[int], seeds: Sequence[int], views: Sequence[str], count: int, seed: int
) -> list[tuple[int, int, str]]:
    """`count` (episode, seed, view), or all for 0: as many of each view as possible, and of a view all episodes before one comes twice."""
    rounds = []
    for view in views:
        order = shuffled(episodes, seed, "episodes", view)
        by_episode = {episode: shuffled(seeds, seed, "seeds", view, episode) for episode in order}
        rounds.append([(episode, by_episode[episode][turn], view) for turn in range(len(seeds)) for episode in order])
    taken = [item for turn in zip(*rounds, strict=True) for item in turn]
    return taken[:count] if count else taken


def rater_order(items: Sequence[int], seed: int, rater: int) -> list[int]:
    """The items in the order in which a rater is offered them."""
    return shuffled(items, seed, "order", rater)


def shown_first(items: Sequence[int], models: tuple[str, str], seed: int, rater: int) -> dict[int, str]:
    """Which of the two models a rater sees as A, by item: each of them in half of the items (the odd one out by chance)."""
    mixed = shuffled(items, seed, "side", rater)
    first, second = shuffled(models, seed, "which side", rater)
    return {item: (first, second)[place % 2] for place, item in enumerate(mixed)}
