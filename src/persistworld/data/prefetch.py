"""Produces the next items in a background thread while the caller works on the current one."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")
_END = object()


def prefetched(items: Iterable[T], ahead: int) -> Generator[T, None, None]:
    """Yield `items` in order. A thread produces at most `ahead` of them in advance, including the one in progress.

    An exception in `items` is raised here at the same position. The thread ends after the last item. If the generator is
    closed, the thread ends after the item in progress. Use contextlib.closing wherever the caller may stop early.
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
                del item  # frees the item's memory while the thread waits for the next one
        except BaseException as error:  # all exceptions, also interrupts, are passed on to the consumer
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
