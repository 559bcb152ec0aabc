"""What freed memory costs the next tensor."""

import platform
import subprocess
import sys

import pytest

# Pages that the system has to hand out for twenty tensors of 64 MiB, one after the other, where there were some before.
PROGRAM = """
import resource, sys
import torch
from persistworld.runtime.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
torch.set_num_threads(1)
for _ in range(10):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc is left as it is")
def test_freed_memory_is_taken_up_again():
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True).stdout)
        for how in ("keep", "default")
    )
    assert kept < 20
    assert given_back > 20 * 30  # a tensor has 32 of them where they are as large as 2 MiB, 16,384 of 4 KiB
