"""How the C library keeps the memory of tensors that are gone."""

import ctypes
import platform

# <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
MOST = 2**31 - 1  # bytes; as much as the setting can be
GROWTH = 2**26  # bytes; what the heap grows by at least


def keep_freed_memory() -> None:
    """Have glibc keep what tensors free, instead of giving it back: a process holds its peak until it ends.

    A tensor of some megabytes is otherwise mapped again each time, and the system clears each of its pages: a quarter of a
    U-Net pass on a CPU, a tenth of a training step. (The threshold for mapping, another way, cannot be above 32 MiB.)
    Other C libraries than glibc are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, MOST), (M_TOP_PAD, GROWTH)):
        libc.mallopt(name, value)
