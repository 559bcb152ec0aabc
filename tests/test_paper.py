"""Tables, figures and the report from a synthetic score table whose effects are known."""

import argparse
import csv
import dataclasses
import io
import json
import re

import av
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from refusals import assert_names, refused
from safetensors.torch import save_file
from synthetic_scores import EFFECTS, GAIN, META, model_frame, write_synthetic

from persistworld.config.compute import ComputeConfig
from persistworld.config.data import EpisodesConfig, MasksConfig
from persistworld.config.evaluation import EvaluationConfig, PaperConfig
from persistworld.config.models import Models, variant
from persistworld.config.params import Params
from persistworld.config.world_model import AutoencoderConfig, RolloutConfig
from persistworld.data.episodes import MANIPULATED_OBJECT, ROBOT
from persistworld.data.formats.lerobot_writer import episode_statistics, write_meta
from persistworld.data.manifest import Entry, Manifest, save_manifest
from persistworld.evaluation.masks import ABOUT
from persistworld.evaluation.score_table import episode_values, load_scores, view_groups, write_scores
from persistworld.evaluation.statistics import bootstrap_mean
from persistworld.evaluation.votes import VOTES, write_rows
from persistworld.paper.bands import mean_with_band
from persistworld.paper.blocks import PROTOCOL_TEXT, table_blocks
from persistworld.paper.cells import claims, make_cells, paired_details, paired_json, reported, table_json
from persistworld.paper.figures import figure_4, figure_over_time, over_time
from persistworld.paper.media import Media, ranked_by_object, ranked_episodes, spread_over
from persistworld.paper.notes import MASKED_LPIPS, Settings, settings_of
from persistworld.paper.overlays import empty_text, mask_sheet, overlay
from persistworld.paper.strips import Strip, cut, figure_3, mask_centres
from persistworld.paper.style import figure
from persistworld.paper.tables import model_json, write_tables
from persistworld.paper.training_plot import panels_of, read_training
from persistworld.paper.videos import comparison_video
from persistworld.simulator.episode import simulate_episode
from persistworld.simulator.generation import write_simulated
from persistworld.stages import figures, preference, report, tables
from persistworld.world_model.autoencoder import Autoencoder, save_autoencoder

SETTINGS = Settings("tabletop", "decoded", (0, 1), bootstrap=200)
SHOWN = [Models()[name] for name in ("base", "post_trained")]
OPTIONS = (SETTINGS.bootstrap, SETTINGS.confidence, SETTINGS.seed)
EPISODES, FRAMES = 8, 9
PAPERS = "DROID"  # only the heading of the paper's own numbers names it


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("scores")
    write_synthetic(path, EPISODES, FRAMES)
    return path


@pytest.fixture(scope="module")
def scores(folder):
    return load_scores(sorted(folder.glob("*.parquet")))


def test_a_cell_is_the_mean_over_frames_then_views_then_seeds_then_episodes():
    values = [  # seed, episode, frame, view, value
        (0, 3, 0, "exterior_1", 1.0), (0, 3, 1, "exterior_1", 3.0), (0, 3, 0, "exterior_2", 10.0),  # (2 + 10) / 2 = 6
        (1, 3, 0, "exterior_1", 8.0),  # 8: the episode is (6 + 8) / 2 = 7
        (0, 7, 0, "exterior_2", 1.0), (0, 3, 0, "wrist", 5.0),
    ]  # fmt: skip
    frame = pd.DataFrame(values, columns=["seed", "episode", "frame", "view", "value"])
    frame = frame.assign(model="base", chunk=0, region="full", metric="psnr", protocol="decoded")
    found = episode_values(frame).set_index(["group", "episode"])["value"].to_dict()
    assert found == {("external", 3): 7.0, ("external", 7): 1.0, ("wrist", 3): 5.0}


def test_known_effects_give_exact_cells_changes_and_wins(scores):
    cells = make_cells(scores, *OPTIONS)
    for metric, gain in GAIN.items():
        cell = cells["decoded", "wrist", "post_trained", "object", metric]
        base = cells["decoded", "wrist", "base", "object", metric].value.mean
        assert cell.episodes == EPISODES
        assert cell.difference.mean == pytest.approx(gain, rel=1e-4)
        assert (cell.difference.low, cell.difference.high) == pytest.approx((gain, gain), rel=1e-4)
        assert cell.change.mean == pytest.approx(100 * gain / base, rel=1e-4)
        assert cells["raw", "external", "base", "full", metric].change is None
    details = paired_details(scores, [("post_trained", "base")], *OPTIONS)
    result = paired_json(details, "decoded", "post_trained", "base")
    found = details["post_trained_vs_base"]["decoded"]["external"]["full"]["lpips"]
    assert found["sign_p"] == pytest.approx(2 / 2**EPISODES, rel=1e-5) and found["losses"] == 0
    assert result["external"]["lpips"] == {"win_rate": 1.0, "p_value": found["wilcoxon_p"], "episodes": EPISODES}
    assert found["wilcoxon_p"] < 0.02
    assert set(result) == {"external", "wrist"} and set(result["wrist"]) == {"ssim", "psnr", "lpips"}


def test_claims_count_cells_and_name_those_that_do_not_improve(scores):
    cells = make_cells(scores, *OPTIONS)
    ours, reverse = ("post_trained", "teacher_forced"), ("base", "post_trained")
    first, second = claims(cells, "decoded", [ours])
    assert (first.better, first.cells, first.worse, second.better, second.cells) == (6, 6, (), 12, 12)
    failed = claims(cells, "decoded", [reverse, ("nobody", "base")])
    assert [(c.table, c.better) for c in failed] == [("table_1", 0), ("table_2", 0)]
    assert "wrist full LPIPS" in failed[0].worse and len(failed[1].worse) == 12


def test_a_win_that_may_be_chance_is_neither_better_nor_worse(scores):
    details = paired_details(scores, [("post_trained", "base"), ("base", "post_trained")], *OPTIONS)
    details["post_trained_vs_base"]["decoded"]["wrist"]["full"]["psnr"]["wilcoxon_p"] = 0.05
    (_, ours), (_, reverse) = table_blocks(make_cells(scores, *OPTIONS), details, "table_1", SETTINGS)[1].rows
    assert [entry.better for entry in ours] == [True, True, True, True, None, True]
    assert [entry.better for entry in reverse] == [False] * 6


def test_a_logged_number_has_one_panel():
    log = pd.DataFrame(columns=["reward_mean", "seconds_reward", "loss", "seconds_update", "note"])
    assert list(panels_of(log).values()) == [["reward_mean"], ["loss"], ["seconds_reward", "seconds_update"]]


def test_json_has_the_promised_shape(scores):
    cells = make_cells(scores, *OPTIONS)
    one, two = (table_json(cells, table, "decoded") for table in ("table_1", "table_2"))
    assert set(one) == {"external", "wrist"} and set(one["wrist"]["post_trained"]) == {"ssim", "psnr", "lpips"}
    assert set(two["external"]["base"]) == {"object", "robot"}
    assert all(isinstance(v, float) for v in two["external"]["base"]["robot"].values())


def test_tables_say_how_they_were_made_and_keep_the_paper_apart(scores, tmp_path):
    write_tables(scores, SETTINGS, tmp_path / "tables", tmp_path / "metrics")
    for name in ("table_1", "table_2"):
        page = (tmp_path / f"tables/{name}.md").read_text()
        for named in ("tabletop", "7x7", "ctrl_world", MASKED_LPIPS["multiplied"], "wrist 2", f"{EPISODES} episodes"):
            assert named in page
        assert page.index(PROTOCOL_TEXT["decoded"]) < page.index(PROTOCOL_TEXT["raw"]) < page.index(PAPERS)
        tex = (tmp_path / f"tables/{name}.tex").read_text()
        assert tex.count("{") == tex.count("}") and tex.count(r"\begin") == tex.count(r"\end") and "tabletop" in tex
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tables/table_1.csv").read_text())))
    printed = [r for r in rows if r["source"] == "paper" and r["model"] == "post_trained" and r["view"] == "external"]
    assert [float(r["value"]) for r in printed] == [0.86, 24.42, 0.07]
    assert {r["protocol"] for r in rows if r["source"] == "this run"} == {"decoded", "raw"}
    metrics = json.loads((tmp_path / "metrics/paired.json").read_text())
    assert metrics["wrist"]["psnr"]["win_rate"] == 1.0
    assert set(json.loads((tmp_path / "metrics/paired_details.json").read_text())) == {
        "post_trained_vs_base", "post_trained_vs_teacher_forced", "teacher_forced_vs_base",
    }  # fmt: skip


def test_the_papers_percentages_follow_from_its_numbers():
    table = reported()["table_1"]
    base, ours = table["external"]["base"], table["external"]["post_trained"]
    assert ours["psnr"] - base["psnr"] == pytest.approx(1.40)  # paper, section 4
    assert 100 * (ours["lpips"] / base["lpips"] - 1) == pytest.approx(-14.0, abs=0.5)


def test_a_variant_gets_the_same_content(folder, tmp_path):
    path = tmp_path / "paper_setting.parquet"
    write_scores(path, model_frame("paper_setting", 0.5, EPISODES, FRAMES), {**META, "empty_masks": {}})
    together = load_scores([folder / "base.parquet", folder / "teacher_forced.parquet", path])
    models = Models((variant("paper_setting", "", "paper_setting", "base"),))
    tree = model_json(together, dataclasses.replace(SETTINGS, models=models), "paper_setting")
    assert set(tree["table_1"]["wrist"]) == {"base", "teacher_forced", "paper_setting"}
    assert tree["paired"]["external"]["ssim"]["win_rate"] == 1.0 and tree["protocol"] == "decoded"


def test_another_control_is_compared_with_what_the_default_run_has(folder, tmp_path):
    write_scores(tmp_path / "own.parquet", model_frame("own_history", 0.5, EPISODES, FRAMES), {**META, "empty_masks": {}})
    together = load_scores([*sorted(folder.glob("*.parquet")), tmp_path / "own.parquet"])
    tree = model_json(together, SETTINGS, "own_history")
    assert set(tree["paired_details"]) == {f"own_history_vs_{other}" for other in ("base", "teacher_forced", "post_trained")}


def test_a_variant_may_be_named_after_a_comparison(folder, tmp_path):
    write_scores(tmp_path / "own.parquet", model_frame("clip_vs_latent", 0.5, EPISODES, FRAMES), {**META, "empty_masks": {}})
    together = load_scores([*sorted(folder.glob("*.parquet")), tmp_path / "own.parquet"])
    models = Models((variant("clip_vs_latent", "Clip or latent", "clip_vs_latent", "base"),))
    write_tables(together, dataclasses.replace(SETTINGS, models=models), tmp_path / "tables", tmp_path / "metrics")
    assert "Clip or latent over Base" in (tmp_path / "tables/table_1.md").read_text()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: f.drop(columns="region"), ("'region'",)),
        (lambda f: f.assign(metric=f["metric"].replace("ssim", "fid")), ("metric", "'fid'")),
        (lambda f: f.assign(value=f["value"].where(f.index != 5)), ("episode 3", "frame 0", "nan")),
        (lambda f: pd.concat([f, f.iloc[:1]]), ("episode 3", "frame 0")),
        (lambda f: f.assign(episode="three"), ()),
    ],
)
def test_a_damaged_score_table_is_one_clear_error(folder, tmp_path, change, named):
    frame = pd.read_parquet(folder / "base.parquet")
    change(frame).to_parquet(tmp_path / "base.parquet", index=False)
    with refused(tmp_path / "base.parquet", *named):
        load_scores([tmp_path / "base.parquet"])


def test_missing_models_and_unequal_metrics_are_clear_errors(folder, tmp_path):
    with refused("nobody.parquet", "--model nobody"):
        load_scores([folder / "nobody.parquet"])
    with refused("'post_trained'"):
        load_scores([folder / "base.parquet"], ["base", "post_trained"])
    frame = model_frame("other", 0.0, EPISODES, FRAMES)
    write_scores(tmp_path / "other.parquet", frame, {**META, "lpips_backbone": "alex"})
    with refused("other.parquet", "lpips_backbone", "'alex'", "'tabletop'"):
        load_scores([folder / "base.parquet", tmp_path / "other.parquet"])
    write_scores(tmp_path / "other.parquet", frame, {**META, "convention": "torchmetrics"})
    with refused("other.parquet", "convention", "'torchmetrics'", "'ctrl_world'"):
        load_scores([folder / "base.parquet", tmp_path / "other.parquet"])
    (tmp_path / "half.parquet").write_bytes(b"PAR1")
    with refused("half.parquet"):
        load_scores([tmp_path / "half.parquet"])
    (tmp_path / "log.csv").write_text("loss\n1\n")
    with refused("log.csv", "'step'"):
        read_training(tmp_path / "log.csv")


def test_episodes_are_shown_by_rank_never_by_hand(scores):
    frame = scores.frame.copy()
    ours = frame["model"] == "post_trained"
    frame["value"] += np.where(ours, 0.001 * frame["episode"], 0.0)  # later episodes gain more
    ranked = ranked_episodes(dataclasses.replace(scores, frame=frame), "decoded", "wrist", "full", "psnr")
    assert list(ranked.index) == [3 + 4 * e for e in reversed(range(EPISODES))]
    assert spread_over(ranked, 3) == [(31, 1), (19, 4), (3, 8)]
    assert spread_over(ranked, 1) == [(19, 4)] and spread_over(ranked[:0], 3) == []


def test_episodes_whose_object_is_seldom_in_view_are_not_shown(scores):
    """Four fifths of all frames, not of what the episode that sees most of it sees."""
    frame, first = scores.frame, scores.frame["episode"].min()
    out_of_view = np.where(frame["episode"] == first, 1, 2)  # of 9 frames
    hidden = (frame["region"] == "object") & (frame["frame"] >= FRAMES - out_of_view)
    region, ranked = ranked_by_object(dataclasses.replace(scores, frame=frame[~hidden]), "decoded", "wrist")
    assert region == "object" and list(ranked.index) == [first]


def test_episodes_are_ranked_by_the_object_where_there_are_masks(scores):
    region, ranked = ranked_by_object(scores, "decoded", "wrist")
    assert region == "object" and ranked.is_monotonic_decreasing and len(ranked) == EPISODES
    unmasked = dataclasses.replace(scores, frame=scores.frame[scores.frame["region"] == "full"])
    assert ranked_by_object(unmasked, "decoded", "wrist")[0] == "full"


def some_media(frames: int = 5) -> Media:
    """Frames that brighten, with the object's mask moving down a column and missing in frame 1."""
    truth = np.zeros((frames, 3, 24, 40, 3), np.uint8)
    truth += (40 * np.arange(frames, dtype=np.uint8))[:, None, None, None, None]
    masks = np.zeros((frames, 3, 24, 40), np.uint8)
    for t in (0, 2, 3, 4):
        masks[t, 2, 4 * t : 4 * t + 3, 10:13] = 2
    models = {"base": truth, "post_trained": truth[::-1].copy()}
    return Media(3, 0, "push the cup", ("exterior_1", "exterior_2", "wrist"), truth, models, masks)


def test_crops_follow_the_mask_and_stay_in_the_frame():
    centres = mask_centres(some_media(), 2, "object")
    assert centres[0].tolist() == [1, 11] and centres[1].tolist() == [1, 11]  # none in frame 1: the nearest one's
    assert centres[4].tolist() == [17, 11]
    assert mask_centres(some_media(), 0, "object")[0].tolist() == [12, 20]
    picture = np.arange(24 * 40).reshape(24, 40, 1)
    assert cut(picture, (1, 11), (10, 10))[0, 0, 0] == 6 and cut(picture, (23, 39), (10, 10)).shape == (10, 10, 1)


def test_a_video_plays_and_shows_the_frames():
    data = comparison_video(some_media(), SHOWN, 5.0)
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert float(container.streams.video[0].average_rate) == 5.0
    assert len(frames) == 5
    height, width = frames[-1].shape[:2]
    middle = frames[-1][height // 2]
    assert abs(int(middle[width // 6].mean()) - 160) < 12 and middle[5 * width // 6].mean() < 12  # truth, post_trained


def test_masks_are_tinted_and_outlined_in_their_colours():
    picture, labels = np.full((9, 9, 3), 100, np.uint8), np.zeros((9, 9), np.uint8)
    labels[2:7, 2:7], labels[4, 4] = ROBOT, MANIPULATED_OBJECT
    shown = overlay(picture, labels)
    blue, orange = np.array((0x00, 0x72, 0xB2)), np.array((0xE6, 0x9F, 0x00))
    assert (shown[0, 0] == 100).all() and (shown[2, 2] == blue).all() and (shown[4, 4] == orange).all()
    assert (shown[3, 3] == np.round(0.55 * 100 + 0.45 * blue)).all()
    sheet = Image.open(io.BytesIO(mask_sheet(some_media(), 3, 5.0)))
    assert sheet.format == "JPEG" and sheet.size == (84 + 3 * 204, 20 + 3 * 124)
    said = empty_text(some_media())
    assert_names(said, "5 frames", "robot in exterior 1: 5", "object in exterior 2: 5", "object in wrist: 1")


@pytest.mark.parametrize(
    ("views", "groups", "shown"),
    [
        (("exterior_1", "exterior_2", "wrist"), ("external", "wrist"), ("wrist", "external")),
        (("wrist",), ("wrist",), ("wrist", "wrist")),
        (("front",), ("front",), ("front", "front")),
        (("exterior_1", "side"), ("external", "side"), ("side", "external")),
        (("top", "exterior_1", "wrist", "front"), ("external", "wrist", "front", "top"), ("wrist", "external")),
    ],
)
def test_any_views_have_their_columns_and_figures(views, groups, shown):
    assert view_groups(views) == groups and tuple(over_time(groups).values()) == shown


def test_a_band_is_the_bootstrap_interval_at_each_place():
    values = np.random.default_rng(1).normal(size=(9, 3))
    with figure(1, 1, 3, 3) as (_, axes):
        ax = axes[0][0]
        mean_with_band(ax, np.array([0.0, 1.0, 2.0]), values, "base", SETTINGS)
        (band,), (line,) = ax.collections, ax.lines
        corners = band.get_paths()[0].vertices
        for place, column in enumerate(values.T):
            expected = bootstrap_mean(column, *OPTIONS)
            drawn = corners[corners[:, 0] == place, 1]
            assert [line.get_ydata()[place], drawn.min(), drawn.max()] == pytest.approx([expected.mean, expected.low, expected.high])
        values[4] = np.nan
        mean_with_band(ax, np.arange(3), values, "copy_frame", SETTINGS)
        assert len(ax.collections) == 1  # no band for a model without a checkpoint
        assert ax.lines[1].get_ydata() == pytest.approx(np.delete(values, 4, axis=0).mean(axis=0))


def test_one_view_of_any_name_is_enough(scores, tmp_path):
    frame = scores.frame[scores.frame["view"] == "wrist"]
    one = dataclasses.replace(scores, frame=frame.assign(view=frame["view"].cat.rename_categories({"wrist": "front"})))
    one.frame["view"] = one.frame["view"].cat.remove_unused_categories()
    write_tables(one, SETTINGS, tmp_path / "tables", tmp_path / "metrics")
    assert set(json.loads((tmp_path / "metrics/table_1.json").read_text())) == {"front"}
    page = (tmp_path / "tables/table_1.md").read_text()
    assert "| Model | front SSIM" in page and "wrist SSIM" in page[page.index(PAPERS) :]
    figure_4(one, SETTINGS, tmp_path)
    figure_over_time(one, SETTINGS, tmp_path, "figure_5", 5.0)
    media = dataclasses.replace(some_media(), views=("front", "side", "top"))
    figure_3([Strip(media, "object", "chosen by hand")], SHOWN, 2, 5.0, "a note", tmp_path, "top")
    assert all((tmp_path / f"figure_{number}.png").is_file() for number in (3, 4, 5))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder as the stages before the paper leave it: two tiny episodes, an autoencoder, rollouts, scores, logs."""
    root = tmp_path_factory.mktemp("work")
    indices = (3, 7)
    for index in indices:
        write_simulated(root / "data/episodes", simulate_episode(index, 0, frames=FRAMES, height=24, width=40, fps=5.0))
    write_meta(root / "data/episodes", [episode_statistics(root / "data/episodes", i) for i in indices], 5.0)
    sizes = AutoencoderConfig(patch=2, latent_channels=4, channels=(32, 32), layers=1)
    torch.manual_seed(0)
    (root / "checkpoints/base").mkdir(parents=True)
    save_autoencoder(Autoencoder(sizes), root / "checkpoints/base")
    (root / "checkpoints/base/manifest.json").write_text('{"seed": 0}')
    for model in ("base", "post_trained"):
        (root / f"data/rollouts/{model}").mkdir(parents=True)
        latents = {"latents": torch.randn(2, FRAMES, 4, 18, 10), "episodes": torch.tensor(indices)}
        save_file(latents, root / f"data/rollouts/{model}/seed-0.safetensors")
    labels = torch.zeros(FRAMES, 3, 24, 40, dtype=torch.uint8)
    labels[:, :, 5:9, 20:28], labels[:, :, 12:, :9] = MANIPULATED_OBJECT, ROBOT
    masks = {str(index): labels.clone() for index in indices}
    save_file(masks, root / "data/masks.safetensors", metadata={ABOUT: '{"source": "simulator"}'})
    short = Entry(11, "validation", "", None, 2, ("no instruction",))
    entries = (*(Entry(i, "validation", "push it", True, FRAMES) for i in indices), short)
    save_manifest(Manifest(entries, {15: "no video of wrist"}, None, {"no instruction": 1}), root / "data/manifest.json", 5)
    write_synthetic(root / "results/scores", 2, FRAMES)
    write_rows(root / "assets/votes.csv", VOTES, [])
    (root / "results/training").mkdir()
    (root / "results/training/base.csv").write_text("step,reward_mean,reward_best,loss\n1,0.5,0.7,1.0\n2,0.6,0.8,0.9\n")
    (root / "results/benchmarks").mkdir()
    (root / "results/benchmarks/tables.tsv").write_text("s\th:m:s\tmax_rss\n7.5\t0:00:07\t-\n")
    return root


def test_the_stages_write_everything_they_promise(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    settings = Params(
        episodes=EpisodesConfig(height=24, width=40, path="data/episodes"),
        evaluation=EvaluationConfig(seeds=(0,), models=tuple(EFFECTS)),
        compute=ComputeConfig(store_truth=False),
        rollout=RolloutConfig(chunks=2),
        masks=MasksConfig(source="simulator"),
        paper=PaperConfig(bootstrap=50, strip_frames=3, report_episodes=2),
    )
    for stage in (tables, figures, preference, report):
        stage.main(settings, argparse.Namespace())
    for number in (3, 4, 5, 6, 11):
        assert (workplace / f"results/figures/figure_{number}.png").stat().st_size > 10_000
        assert (workplace / f"results/figures/figure_{number}.pdf").read_bytes().startswith(b"%PDF")
    page = (workplace / "results/report.html").read_text()
    assert page.count("data:video/mp4;base64,") == 2 and page.count("data:image/png;base64,") == 6
    assert page.count("data:image/jpeg;base64,") == 2 and "masks: simulator" in page
    odd = ("3 validation", "no instruction", "episode 15: no video", "9 frames (11)")
    for said in ("Scale: tabletop", "6 of 6", "7.5", "report_episodes: 2", "rank 1 of 2", "torch", *odd):
        assert said in page
    assert not re.search(r"""(src|href)=["']?(https?:|//)|url\(""", page)  # nothing is fetched
    first = {path: path.read_bytes() for path in (workplace / "results/figures").glob("figure_4.*")}
    figure_4(
        load_scores([workplace / f"results/scores/{m}.parquet" for m in settings.evaluation.models]),
        settings_of(settings),
        workplace / "results/figures",
    )
    assert len(first) == 2 and all(path.read_bytes() == data for path, data in first.items())
