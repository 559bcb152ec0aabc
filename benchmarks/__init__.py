"""Timings and counts, by hand: `python -m benchmarks [name ...] [--params FILE]`. Not tests: nothing here passes or fails."""
