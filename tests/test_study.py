"""The preference study: what raters are shown, what is stored, and what an attacker gets."""

import contextlib
import csv
import io
import json
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import av
import httpx2
import numpy as np
import pytest
from made_up import make_clone, stages
from refusals import refused
from starlette.testclient import TestClient
from study_material import FPS, FRAMES, MODELS, film, invited, make_study, served

from persistworld.apps.study.films import encode_film, padded, read_frames
from persistworld.apps.study.limits import BODY, Rate
from persistworld.apps.study.order import chosen_pairs, rater_order, shown_first
from persistworld.apps.study.routes import ranged, study_app
from persistworld.apps.study.store import Refused, Store, study_path
from persistworld.runtime.errors import UserError


@pytest.fixture
def study(tmp_path):
    """A store, the administrator's token and the tokens of three raters."""
    path, administrator = make_study(tmp_path)
    tokens = invited(path, 3)
    with contextlib.closing(Store(path)) as store:
        yield store, administrator, tokens


@pytest.fixture
def page(study):
    store, administrator, tokens = study
    with TestClient(study_app(store), base_url="http://localhost") as client:
        yield client, administrator, tokens, store


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def state(client, token: str) -> dict:
    answer = client.get("api/state", headers=bearer(token))
    assert answer.status_code == 200
    return answer.json()


def vote(client, token: str, item: str, answer: str = "a", request: str = "0123456789abcdef"):
    return client.post("api/answer", json={"item": item, "answer": answer, "request": request}, headers=bearer(token))


# Items, orders, sides


def test_items_are_spread_over_views_and_episodes_and_come_from_the_seed():
    views = ("exterior_1", "exterior_2", "wrist")
    chosen = chosen_pairs(range(10), (0, 1), views, 30, seed=7)
    assert Counter(view for _, _, view in chosen) == {view: 10 for view in views}
    assert all(count == 1 for count in Counter((episode, view) for episode, _, view in chosen).values())
    assert chosen == chosen_pairs(range(10), (0, 1), views, 30, seed=7) != chosen_pairs(range(10), (0, 1), views, 30, seed=8)
    everything = chosen_pairs(range(10), (0, 1), views, 0, seed=7)
    assert len(set(everything)) == 60 and everything[:30] == chosen


def test_each_rater_has_an_order_and_balanced_sides_of_the_seed():
    items = list(range(40))
    orders = [rater_order(items, 5, rater) for rater in range(20)]
    assert all(sorted(order) == items for order in orders) and len({tuple(order) for order in orders}) == 20
    sides = [shown_first(items, MODELS, 5, rater) for rater in range(20)]
    assert all(Counter(side.values()) == {model: 20 for model in MODELS} for side in sides)
    assert sides[0] == shown_first(items, MODELS, 5, 0)
    # Of one item, the raters are shown either model as A about equally often.
    first = np.array([[side[item] == MODELS[0] for item in items] for side in sides])
    assert 0.4 < first.mean() < 0.6 and first.mean(axis=0).min() > 0.15 and first.mean(axis=0).max() < 0.85


# Films


def test_candidates_differ_in_their_pictures_alone(tmp_path):
    noisy = np.random.default_rng(0).integers(0, 255, (FRAMES, 32, 48, 3), dtype=np.uint8)
    films = padded([encode_film(film(60), FPS), encode_film(noisy, FPS)])
    assert len(films[0]) == len(films[1]) and len(films[0]) % 4096 == 0
    assert films == padded([encode_film(film(60), FPS), encode_film(noisy, FPS)])  # no time, no name
    facts = []
    for mp4 in films:
        with av.open(io.BytesIO(mp4)) as container:
            stream = container.streams.video[0]
            shape = (stream.codec_context.name, stream.width, stream.height, stream.pix_fmt, stream.frames, stream.average_rate)
            facts.append((shape, container.metadata, stream.metadata))
    assert facts[0] == facts[1]
    [shape, *_] = facts[0]
    assert shape[:5] == ("h264", 336, 224, "yuv420p", FRAMES)
    path = tmp_path / "film.mp4"
    path.write_bytes(films[0])
    frames, rate = read_frames(str(path))
    centre = frames[:, 4::7, 4::7][:, :32, :48]
    assert rate == FPS and np.abs(centre.astype(int) - film(60)).mean() < 3  # the padding does not disturb a player


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        (None, 200, 0, 99), ("bytes=0-9", 206, 0, 9), ("bytes=90-", 206, 90, 99), ("bytes=-7", 206, 93, 99),
        ("bytes=50-5000", 206, 50, 99), ("bytes=100-", 416, 0, -1), ("bytes=9-3", 416, 0, -1), ("bytes=-0", 416, 0, -1),
        ("bytes=0-1,4-5", 200, 0, 99), ("lines=1-2", 200, 0, 99), ("bytes=-", 200, 0, 99),
        ("bytes=²-", 200, 0, 99), (f"bytes=-{10**30}", 206, 0, 99),
    ],
)  # fmt: skip
def test_ranges(asked, status, first, last):
    data = bytes(range(100))
    answer = ranged(data, asked)
    assert (answer.status_code, answer.body) == (status, data[first : last + 1])
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {first}-{last}/100"


def test_films_of_an_item_have_equal_headers_and_say_nothing(page):
    client, _, tokens, _ = page
    item = state(client, tokens[0])["items"][0]["item"]
    answers = [client.get(f"film/{item}/{slot}", headers={"Range": "bytes=0-99"}) for slot in ("reference", "a", "b")]
    assert all(answer.status_code == 206 for answer in answers)
    assert answers[0].headers == answers[1].headers == answers[2].headers
    assert not {"etag", "last-modified", "content-disposition"} & set(answers[0].headers)


# Votes


def test_a_vote_names_the_model_that_was_shown_on_its_side(page):
    client, administrator, tokens, store = page
    for place, item in enumerate(state(client, tokens[0])["items"]):
        assert vote(client, tokens[0], item["item"], "ab"[place % 2], f"request-{place:08d}").status_code == 200
    rows = list(csv.DictReader(io.StringIO(client.get("api/answers.csv", headers=bearer(administrator)).text)))
    assert len(rows) == 12 and {row["rater"] for row in rows} == {rows[0]["rater"]}
    key = {(row["item"], row["rater"]): row["first"] for row in store._rows("SELECT item, rater, first FROM assignments")}
    order = [row["item"] for row in store.assignments(1)]
    for row, number in zip(rows, order, strict=True):
        first = key[number, 1]
        assert row["winner"] == (first if row["side"] == "a" else MODELS[MODELS[0] == first])
        assert int(row["episode"]) == store.items()[number]["episode"]
    assert [row["side"] for row in rows] == ["a", "b"] * 6


def test_undo_takes_back_the_last_vote_alone_and_the_item_can_be_rated_again(page):
    client, _, [token, *_], _ = page
    first, second = (item["item"] for item in state(client, token)["items"][:2])
    vote(client, token, first, "a", "request-of-first")
    vote(client, token, second, "a", "request-of-second")
    assert client.post("api/undo", json={"item": first}, headers=bearer(token)).status_code == 409
    assert client.post("api/undo", json={"item": second}, headers=bearer(token)).json() == {"last": first}
    assert vote(client, token, second, "a", "request-of-second").status_code == 409  # replayed after the undo
    assert vote(client, token, second, "b", "request-of-another").status_code == 200
    found = state(client, token)
    assert [item["answer"] for item in found["items"][:3]] == ["a", "b", None] and found["last"] == second


def test_a_vote_counts_once_from_two_tabs_and_from_many_threads(page):
    client, administrator, [token, *_], store = page
    item = state(client, token)["items"][0]["item"]
    assert vote(client, token, item, "a", "request-of-tab-one").status_code == 200
    assert vote(client, token, item, "a", "request-of-tab-one").status_code == 200  # the same click, sent again
    assert vote(client, token, item, "b", "request-of-tab-one").status_code == 409
    assert vote(client, token, item, "b", "request-of-tab-two").status_code == 409
    other, results = state(client, token)["items"][1]["item"], []

    def click(place: int) -> None:
        with contextlib.suppress(Refused):
            store.record(1, other, "a", f"request-{place:08d}")
            results.append(place)

    threads = [threading.Thread(target=click, args=[place]) for place in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 1
    assert len(client.get("api/answers.csv", headers=bearer(administrator)).text.splitlines()) == 3


def test_the_order_of_a_rater_is_stored_and_survives_a_restart(study):
    store, _, tokens = study
    before = [tuple(row) for row in store.assignments(2)]
    with contextlib.closing(Store(store.path)) as again:
        assert [tuple(row) for row in again.assignments(2)] == before
        assert again.rater_of(tokens[1])["id"] == 2


# Attacks


def test_without_a_valid_token_nothing_is_told(page):
    client, administrator, [token, *_], _ = page
    for path in ("api/state", "api/summary", "api/answers.csv"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers=bearer("guess")).status_code == 401
    assert client.get("api/summary", headers=bearer(token)).status_code == 401  # a rater is no administrator
    assert client.get("api/state", headers=bearer(administrator)).status_code == 401
    for path in ("docs", "redoc", "openapi.json"):
        assert client.get(path).status_code == 404


def test_another_raters_item_and_made_up_votes_are_refused(page):
    client, administrator, [one, two, _], _ = page
    theirs = state(client, two)["items"][0]["item"]
    assert vote(client, one, theirs).status_code == 409
    assert client.post("api/undo", json={"item": theirs}, headers=bearer(one)).status_code == 409
    own = state(client, one)["items"][0]["item"]
    for body in (
        {"item": own, "answer": "post_trained", "request": "0123456789abcdef"},
        {"item": own, "answer": "1", "request": "0123456789abcdef"},
        {"item": own, "answer": "a"},
        {"item": own, "answer": "a", "request": "short"},
        {"item": own, "answer": ["a"], "request": "0123456789abcdef"},
        {"item": "' OR 1=1 --", "answer": "a", "request": "0123456789abcdef"},
        {"item": own, "answer": "a", "request": "0123456789abcdef", "winner": "post_trained"},
    ):
        assert client.post("api/answer", json=body, headers=bearer(one)).status_code == 400
    assert len(client.get("api/answers.csv", headers=bearer(administrator)).text.splitlines()) == 1


def test_a_page_knows_neither_key_nor_others(page):
    client, _, [one, two, _], _ = page
    vote(client, two, state(client, two)["items"][0]["item"], "b")
    text = client.get("api/state", headers=bearer(one)).text
    assert not any(word in text for word in ("post_trained", "base", "first", "episode", "rater"))
    assert all(item["answer"] is None for item in json.loads(text)["items"])
    handles = [{item["item"] for item in state(client, token)["items"]} for token in (one, two)]
    assert not handles[0] & handles[1]


@pytest.mark.parametrize(
    "path",
    [
        "film/{item}/post_trained", "film/{item}/base", "film/{item}/..", "film/{item}/%2e%2e%2fa", "film/AAAAAAAAAAAAAAAAAAAAAA/a",
        "film/%2e%2e/%2e%2e", "film/..%2f..%2fetc%2fpasswd/a", "film/{item}/a%00", "film/1/reference", "studies/demo.sqlite",
        "static/../study/store.py", "static/%2e%2e/server.py", "static/..%2f..%2fcli.py",
    ],
)  # fmt: skip
def test_guessed_names_and_paths_lead_nowhere(page, path):
    client, _, [token, *_], _ = page
    item = state(client, token)["items"][0]["item"]
    assert client.get(path.format(item=item)).status_code in (401, 404)


def test_remarks_are_text_and_have_limits(page):
    client, administrator, [token, *_], _ = page
    script = "<script>alert(1)</script>"
    assert client.post("api/remark", json={"text": script}, headers=bearer(token)).status_code == 200
    answer = client.get("api/summary", headers=bearer(administrator))
    assert answer.json()["remarks"] == [script] and answer.headers["content-type"] == "application/json"  # the page shows it as text
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe-inline" not in policy
    assert client.post("api/remark", json={"text": "x" * 2001}, headers=bearer(token)).status_code == 400
    statuses = [client.post("api/remark", json={"text": "again"}, headers=bearer(token)).status_code for _ in range(20)]
    assert statuses == [200] * 19 + [409]


def test_long_bodies_are_refused_before_they_are_read(page):
    client, _, [token, *_], _ = page
    assert client.post("api/remark", content=b"x" * (BODY + 1), headers=bearer(token)).status_code == 413

    def endless():
        for _ in range(100):
            yield b"x" * 1000

    assert client.post("api/remark", content=endless(), headers=bearer(token)).status_code == 413


def test_rates_are_limited_by_rater_and_strangers_do_not_lock_raters_out(page):
    client, _, [one, two, _], _ = page
    statuses = [client.get("api/state", headers=bearer("guess")).status_code for _ in range(40)]
    assert statuses[0] == 401 and statuses[-1] == 429
    statuses = [client.get("api/state", headers=bearer(one)).status_code for _ in range(80)]
    assert statuses[0] == 200 and statuses[-1] == 429
    assert client.get("api/state", headers=bearer(two)).status_code == 200
    rate = Rate(burst=2, per_second=0.5)
    assert [rate.allows("k", now) for now in (0, 0, 0, 1, 2, 2.5, 6, 6, 6)] == [True, True, False, False, True, False, True, True, False]


def test_another_sites_page_cannot_vote(page):
    client, _, [token, *_], _ = page
    item = state(client, token)["items"][0]["item"]
    body = {"item": item, "answer": "a", "request": "0123456789abcdef"}
    assert client.post("api/answer", json=body, headers=bearer(token) | {"Origin": "http://evil.example"}).status_code == 403
    assert "set-cookie" not in client.get("/").headers  # nothing that a browser would send by itself


# The administrator


def test_the_administrator_sees_progress_and_agreement_and_no_name_beside_a_vote(page):
    client, administrator, tokens, _ = page
    for token in tokens[:2]:
        client.post("api/begin", headers=bearer(token), json={})
        for place, item in enumerate(state(client, token)["items"][:6]):
            vote(client, token, item["item"], "ab"[place % 2], f"request-{token[:6]}-{place:06d}".replace("_", "x"))
    found = client.get("api/summary", headers=bearer(administrator)).json()
    assert found["raters"] == [
        {"name": "Rater 0", "state": "rates"}, {"name": "Rater 1", "state": "rates"}, {"name": "Rater 2", "state": "link not opened"},
    ]  # fmt: skip
    assert (found["answered"], found["wanted"], found["results"]["votes"]) == (12, 36, 12)
    assert {"preference", "agreement", "position"} <= set(found["results"])
    table = client.get("api/answers.csv", headers=bearer(administrator)).text
    assert "Rater" not in table and not any(token in table for token in tokens)
    assert "by_rater" not in found["results"]


def test_progress_labels_become_the_csv_of_the_policy_evaluation(tmp_path):
    path, administrator = make_study(tmp_path, items=4, kind="progress")
    [token] = invited(path, 1)
    with contextlib.closing(Store(path)) as store, TestClient(study_app(store), base_url="http://localhost") as client:
        items = state(client, token)["items"]
        assert items[0]["stages"] == ["Reach", "Grasp", "Lift"] and "expert" not in client.get("api/state", headers=bearer(token)).text
        assert client.get(f"film/{items[0]['item']}/film").status_code == 200
        assert client.get(f"film/{items[0]['item']}/a").status_code in (401, 404)
        assert vote(client, token, items[0]["item"], "4").status_code == 400
        assert vote(client, token, items[0]["item"], "2").status_code == 200
        [row] = csv.DictReader(io.StringIO(client.get("api/answers.csv", headers=bearer(administrator)).text))
        assert (row["policy"], row["reached"], row["stages"]) == ("expert", "2", "3")
        found = client.get("api/summary", headers=bearer(administrator)).json()["results"]["progress"]
        assert float(row["progress"]) == found[0]["progress"] == pytest.approx(2 / 3, abs=1e-6)


# Files and processes


def test_a_study_is_one_file_that_a_backup_copies_while_it_is_open(study, tmp_path):
    store, _, tokens = study
    store.record(1, store.assignments(1)[0]["handle"], "a", "0123456789abcdef")
    copy = tmp_path / "copy.sqlite"
    store.back_up(copy)
    with contextlib.closing(sqlite3.connect(copy)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT count(*) FROM answers").fetchone() == (1,)
        assert database.execute("SELECT count(*) FROM films").fetchone() == (36,)
    text = copy.read_bytes()
    assert not any(token.encode() in text for token in tokens)  # digests alone
    with pytest.raises(UserError):
        store.back_up(copy)


@pytest.mark.parametrize("name", ["../other", "Demo", "", "a/b", "-x", "a" * 65])
def test_names_stay_in_their_folder(name):
    with pytest.raises(UserError):
        study_path(name)


def test_what_is_no_study_is_one_line(tmp_path):
    (tmp_path / "text.sqlite").write_text("not a database, and long enough to be looked at " * 50)
    for name in ("missing", "text"):
        with refused(name):
            Store(tmp_path / f"{name}.sqlite")
    path, _ = make_study(tmp_path)
    with refused(tmp_path):
        make_study(tmp_path)
    assert path.is_file()


def test_votes_that_were_acknowledged_outlive_a_kill(tmp_path):
    """Twice here, with one client; `python -m benchmarks.study` does it twenty times under load."""
    path, _ = make_study(tmp_path, items=12)
    [token] = invited(path, 1)
    acknowledged = []
    for turn in range(2):
        with served(tmp_path) as (address, process), client_of(address) as client:
            for item in [item for item in state(client, token)["items"] if item["answer"] is None][:4]:
                assert vote(client, token, item["item"], "a", f"request-{turn}-{item['item'][:8].replace('_', 'x')}").status_code == 200
                acknowledged.append(item["item"])
            process.kill()
    with contextlib.closing(Store(path)) as store:
        assert {row["handle"] for row in store.assignments(1) if row["answer"]} == set(acknowledged) and len(acknowledged) == 8


def test_below_a_prefix_pages_and_calls_work(tmp_path):
    path, _ = make_study(tmp_path, items=2)
    [token] = invited(path, 1)
    with served(tmp_path, "--prefix", "/lab/study", "--allow-host", "study.example") as (address, _), client_of(address) as client:
        assert address.endswith("/lab/study/")
        page = client.get("")
        assert "static/study.js" in page.text and '="/' not in page.text
        assert client.get("static/study.js").status_code == client.get("admin").status_code == 200
        item = state(client, token)["items"][0]["item"]
        assert client.get(f"film/{item}/a", headers={"Host": "study.example"}).status_code == 200
        assert client.get("", headers={"Host": "other.example"}).status_code == 403


def client_of(address: str) -> httpx2.Client:
    """A client of a server process."""
    return httpx2.Client(base_url=address, timeout=30)


def test_the_tool_from_rollouts_to_results(tmp_path):
    """Made-up episodes, a tiny random base and the rollouts of two models: create, invite, export, results."""
    clone = make_clone(tmp_path, views=2, changes={"evaluation": {"models": ["base", "post_trained"], "seeds": [0, 1]}})
    with contextlib.chdir(clone):
        stages("episodes", "base_checkpoint", "latents --shard 0", "latents --shard 1", "manifest", "truth")
        stages("rollouts --model base --seed 0", "rollouts --model base --seed 1")
        Path("data/rollouts/post_trained").mkdir()
        for seed in (0, 1):
            Path(f"data/rollouts/post_trained/seed-{seed}.safetensors").symlink_to(f"../base/seed-{1 - seed}.safetensors")
        done = tool("create", "demo", "--items", "6")
        assert done.returncode == 0, done.stderr
        assert tool("create", "demo").returncode == 2
        links = tool("invite", "demo", "Jane", "--count", "2", "--url", "https://study.example/x/").stdout.splitlines()
        assert [line.split("#")[0] for line in links] == ["Jane: https://study.example/x/", *["rater: https://study.example/x/"] * 2]
        with contextlib.closing(Store(Path("studies/demo.sqlite"))) as store:
            assert [store.rater_of(link.split("#")[1])["name"] for link in links] == ["Jane", "", ""]
            items = store.items()
            assert Counter(about["view"] for about in items.values()) == {"exterior_1": 3, "exterior_2": 3}
            assert {about["frames"] for about in items.values()} == {9}
            for rater in (1, 2, 3):
                for place, row in enumerate(store.assignments(rater)):
                    store.record(rater, row["handle"], "ab"[place % 2], f"request-{rater}-{place:06d}")
        assert tool("results", "nowhere.csv").returncode == 2
        assert tool("export", "demo", "--output", "votes.csv").returncode == 0
        done = tool("results", "votes.csv", "--output", "results.json")
        assert done.returncode == 0 and "18 votes of 3 raters on 6 items" in done.stdout, done.stderr
        assert json.loads(Path("results.json").read_text())["votes"] == 18
        assert tool("backup", "demo", "--output", "copy.sqlite").returncode == 0


def tool(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "persistworld.cli", "study", *args, "--threads", "1"], capture_output=True, text=True)
