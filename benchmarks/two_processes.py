"""Two processes on one device sum a tensor of 100 MB. Started by torchrun (`benchmarks/gpu.py`); the first prints backend and seconds."""

import json
import time

import torch
import torch.distributed as dist

NUMBERS, TIMES = 25_000_000, 3


def main() -> None:
    """Join, sum a tensor, check the sum."""
    cuda = torch.cuda.is_available()
    backend = "nccl" if cuda else "gloo"
    dist.init_process_group(backend)
    tensor = torch.ones(NUMBERS, device="cuda:0" if cuda else "cpu")
    dist.all_reduce(tensor)
    began = time.perf_counter()
    for _ in range(TIMES):
        dist.all_reduce(tensor)
    if cuda:
        torch.cuda.synchronize()
    took = (time.perf_counter() - began) / TIMES
    if tensor[0].item() != 2 ** (TIMES + 1):
        raise RuntimeError(f"two processes summed ones to {tensor[0].item()}")
    if dist.get_rank() == 0:
        print(json.dumps({"backend": backend, "seconds": took}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
