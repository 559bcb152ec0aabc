"""The report's notes on the episodes: how many there are, what was corrected, what was left out and why."""

from persistworld.config.params import Params
from persistworld.data.manifest import Manifest

LISTED = 20  # the most episodes that are listed by name


def data_notes(manifest: Manifest, params: Params) -> list[str]:
    """One sentence for each irregularity in the episodes, with what was done about it."""
    counts = ", ".join(f"{len(manifest.split(s))} {s}" for s in ("train", "tuning", "validation") if manifest.split(s))
    found = [f"Usable episodes: {counts}."]
    found += [f"Dealt with, in {count} of them: {note}." for note, count in sorted(manifest.notes.items())]
    found += [f"Left out, episode {index}: {reason}." for index, reason in sorted(manifest.bad.items())[:LISTED]]
    if len(manifest.bad) > LISTED:
        found.append(f"Left out besides: {len(manifest.bad) - LISTED} (bad, in data/manifest.json).")
    frames = params.rollout_frames
    short = manifest.too_short(params.evaluation.split, frames)
    if short:
        which = ", ".join(str(entry.index) for entry in short[:LISTED]) + (", ..." if len(short) > LISTED else "")
        found.append(f"Not evaluated: {len(short)} {params.evaluation.split} episodes of fewer than {frames} frames ({which}).")
    return found
