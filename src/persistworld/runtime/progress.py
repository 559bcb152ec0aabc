"""Progress: a bar on a terminal, a plain line now and then in a log. Of several processes, the first one speaks."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def track(items: Iterable[Item], total: int, label: str, start: int = 0) -> Iterator[Item]:
    """Yield `items`, showing how many of `total` are done. `start` counts those that an earlier run did."""
    if os.environ.get("RANK", "0") != "0":  # as torchrun and accelerate number them
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
