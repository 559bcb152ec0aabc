"""`python -m benchmarks [name ...] [--params FILE] [--threads N]` prints Markdown tables. Without names it runs all benchmarks.

At the paper's scale, with random weights, one GPU takes a quarter of an hour:
`python -m benchmarks cost chunk phases --params presets/droid.yaml`.

`cost` counts FLOPs and bytes, and needs no weights and little time. `extraction` times an autoencoder with random weights, on the preset's
episodes if they exist. The others use the base checkpoint's weights if they exist, else random ones. Run them on an otherwise idle machine.
"""

import argparse
import importlib
import os
import platform
import sys
from pathlib import Path

WITH_MODELS = {
    "throughput": "frames per second of each part",
    "chunk": "seconds and memory of a chunk",
    "phases": "seconds per phase of a post-training step",
    "batching": "batched groups against one candidate at a time",
    "engine": "our sampler against a plain diffusers loop",
}
WITHOUT_MODELS = {
    "cost": "FLOPs and peak memory, computed",
    "extraction": "images per second from video to latents, and all of DROID",
    "study": "the preference study under 50 raters at once, and through 20 kills",
}
ALONE = {  # run only if they are named
    "droid_size": "seconds and memory of the stages at a --share of DROID's size (0.01, 0.1 or 1)",
    "gpu": "the paper's scale on one GPU, in twelve minutes",
}


def main() -> int:
    """Run the benchmarks. Returns 0, or 2 for an error that the user can fix."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Timings and counts; not tests.")
    known = WITHOUT_MODELS | WITH_MODELS | ALONE
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(f"{n} ({t})" for n, t in known.items()))
    parser.add_argument("--params", default="params.yaml", metavar="FILE", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N", help="(default: all cores)")
    parser.add_argument("--share", type=float, default=0.01, help="droid_size: of DROID's episodes (default: %(default)s)")
    parser.add_argument("--folder", metavar="FOLDER", help="droid_size: where to make the data (default: the system's temporary folder)")
    parser.add_argument("--size", choices=["full", "small"], default="full", help="gpu: small runs on a CPU (default: %(default)s)")
    parser.add_argument("--budget", type=float, default=700, metavar="S", help="gpu: seconds (default: %(default)s)")
    parser.add_argument("--out", default="docs", metavar="FOLDER", help="gpu: where to write gpu.json and gpu.md (default: %(default)s)")
    args = parser.parse_args()
    if unknown := set(args.names) - known.keys():
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # set before torch is imported
    import torch

    from benchmarks.materials import load_materials
    from benchmarks.table import markdown
    from persistworld.config.params import load_params
    from persistworld.runtime.errors import UserError
    from persistworld.runtime.memory import keep_freed_memory

    keep_freed_memory()  # as every stage does
    torch.set_num_threads(args.threads)
    try:
        params = load_params(args.params)
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{args.threads} threads of {os.cpu_count()} cores"
        print(f"preset {params.preset}; {device}; {platform.machine()}; torch {torch.__version__}\n", flush=True)
        names = [name for name in known if name in args.names or (not args.names and name not in ALONE)]
        materials = load_materials(params) if set(names) & WITH_MODELS.keys() else None
        for name in names:
            module = importlib.import_module(f"benchmarks.{name}")
            if name == "gpu":
                module.main(args.size, args.budget, Path(args.out))
                continue
            rows = module.rows(args.share, args.folder) if name in ALONE else module.rows(params if name in WITHOUT_MODELS else materials)
            print(markdown(known[name], rows), flush=True)
    except UserError as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
