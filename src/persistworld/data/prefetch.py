"""The next items are made by a thread of their own while this one is worked on."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
_END = object()


def prefetched(items: Iterable[T], ahead: int) -> Generator[T, None, None]:
    """`items` in their order, at most `ahead` of them made, or in the making, before they are asked for.

    What making one raises is raised here, in its place. The thread ends with the items, or when this generator is closed,
    then after the item that it is making: close it (contextlib.closing) wherever it may be left before its end.
    """
    found: queue.SimpleQueue = queue.SimpleQueue()
    room, stopped = threading.Semaphore(ahead), threading.Event()

    def make() -> None:
        source = iter(items)
        try:
            while True:
                room.acquire()
                if stopped.is_set():
                    return
                item = next(source, _END)
                found.put((item, None))
                if item is _END:
                    return
                del item  # or it would live on while the next is waited for
        except BaseException as error:  # an interrupt too belongs to whoever waits
            found.put((None, error))

    thread = threading.Thread(target=make, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = found.get()
            room.release()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
            del item
    finally:
        stopped.set()
        room.release()
        thread.join()
