"""Timings and counts, run by hand: `python -m benchmarks [name ...] [--params FILE]`. They are no tests: nothing passes or fails."""
