"""Shows progress: a bar on a terminal, occasional lines in a log. With several processes, only the first one prints."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def announce(text: str) -> None:
    """Print a line about what begins, in the first process; nothing if there is no text."""
    if text and os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


def track(items: Iterable[Item], total: int, label: str, start: int = 0) -> Iterator[Item]:
    """Yield `items` and show how many of `total` are done. `start` is the number that an earlier run did."""
    if os.environ.get("RANK", "0") != "0":  # set by torchrun and accelerate
        yield from items
        return
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, initial=start, desc=label)
        return
    began = last = time.monotonic()
    for done, item in enumerate(items, start + 1):
        yield item
        now = time.monotonic()
        if now - last > 10 or done == total:
            last = now
            print(f"{label}: {done}/{total}, {now - began:.0f} s", file=sys.stderr, flush=True)
