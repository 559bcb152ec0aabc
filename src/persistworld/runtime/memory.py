"""Sets how the C library keeps the memory of freed tensors."""

import ctypes
import platform

# Constants of <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
MOST = 2**31 - 1  # bytes; the largest value of the setting
GROWTH = 2**26  # bytes; the smallest growth of the heap


def keep_freed_memory() -> None:
    """Make glibc keep the memory that tensors free instead of returning it. The process then holds its peak memory until it ends.

    Otherwise a tensor of some megabytes is mapped again each time and the system clears its pages. This takes a quarter of a U-Net pass on
    a CPU and a tenth of a training step. (Raising the mmap threshold is not enough: its maximum is 32 MiB.) Has no effect on C libraries
    other than glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, MOST), (M_TOP_PAD, GROWTH)):
        libc.mallopt(name, value)
