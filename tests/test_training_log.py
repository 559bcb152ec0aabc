"""A training run's log, as CSV and as TensorBoard reads it."""

import pandas as pd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from persistworld.training.log import TrainingLog


def write(folder, start: int, steps: range, scale: float, writes: bool = True) -> None:
    log = TrainingLog(folder, start, writes)
    for step in steps:
        log.append({"step": step, "loss": scale * step, "gradient_norm": scale})
    log.close()


def curves(folder) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder)).Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_a_resumed_run_has_every_step_once(tmp_path):
    """Steps 0 to 4 were written, step 3's state was not: steps 3 and 4 come again, and count as they come then."""
    write(tmp_path, 0, range(5), 1.0)
    write(tmp_path, 3, range(3, 6), 0.5)
    log = pd.read_csv(tmp_path / "log.csv")
    assert log["step"].tolist() == list(range(6))
    assert log["loss"].tolist() == [0, 1, 2, 1.5, 2, 2.5]
    assert curves(tmp_path) == {name: list(zip(log["step"], log[name], strict=True)) for name in ("loss", "gradient_norm")}


def test_a_log_that_was_left_empty_gets_its_header(tmp_path):
    (tmp_path / "log.csv").touch()
    write(tmp_path, 0, range(2), 1.0)
    assert pd.read_csv(tmp_path / "log.csv")["step"].tolist() == [0, 1]


def test_a_log_that_starts_anew_has_the_columns_of_today(tmp_path):
    (tmp_path / "log.csv").write_text("step,old\n0,1\n")
    write(tmp_path, 0, range(2), 1.0)
    assert pd.read_csv(tmp_path / "log.csv").columns.tolist() == ["step", "loss", "gradient_norm"]


def test_only_the_first_process_writes(tmp_path):
    write(tmp_path, 0, range(2), 1.0, writes=False)
    assert not list(tmp_path.iterdir())
