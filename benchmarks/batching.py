"""The speed-up of sampling candidates in a batch over sampling them one at a time."""

from benchmarks.materials import Materials
from benchmarks.table import Row, seconds_in_turns


def rows(materials: Materials, repeats: int = 3) -> list[Row]:
    """Time all candidates of a step (at most 32) in one batch, and one by one."""
    settings, model = materials.params.post_training, materials.model
    count = min(32, settings.groups * settings.candidates)
    condition, noise = materials.condition(count), materials.latents(count, model.config.future)

    def sample(rows: slice) -> None:
        model.sample(condition.take(rows), noise[rows], settings.sampler, settings.precision)

    one_by_one = [slice(i, i + 1) for i in range(count)]
    together, alone = seconds_in_turns([lambda: sample(slice(None)), lambda: [sample(each) for each in one_by_one]], repeats)
    return [
        Row("one batch", count / together, "chunks/s", f"{count} candidates, {settings.sampler.steps} steps"),
        Row("one at a time", count / alone, "chunks/s", ""),
        Row("ratio", alone / together, "", "aim: 4 on two cores, 8 on a GPU"),
    ]
