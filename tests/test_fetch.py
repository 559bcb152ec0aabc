"""Fetching a base checkpoint: real transfers over loopback servers, and every way in which they go wrong."""

import argparse
import dataclasses
import hashlib
import http.server
import json
import socket
import tarfile
import threading
import urllib.request
from pathlib import Path

import pytest
import torch
from refusals import refused

from persistworld.checkpoints import hub as fetching
from persistworld.checkpoints.ctrl_world import CTRL_WORLD_STATISTICS, flat_shapes
from persistworld.checkpoints.folders import load_base_model
from persistworld.checkpoints.hub import KNOWN, TOKENIZER, HubModel, fetch, fetch_model, known_model
from persistworld.config.data import BaseCheckpointConfig, EpisodesConfig
from persistworld.config.params import Params
from persistworld.config.world_model import AutoencoderConfig, TextEncoderConfig, UNetConfig, WorldModelConfig
from persistworld.runtime.errors import UserError
from persistworld.runtime.tensor_files import write_pickle
from persistworld.stages import base_checkpoint
from persistworld.tools import fetch as fetch_tool
from persistworld.world_model.text import save_tokenizer, train_tokenizer

CONFIG = b'{"world_model": {}, "views": ["exterior_1", "exterior_2", "wrist"]}'
FILES = {"config.json": CONFIG, "world_model.safetensors": bytes(range(256)) * 400}
COMMIT = "a" * 40
URL = "https://example.test/base.tar"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are kept below the working directory."""
    monkeypatch.chdir(tmp_path)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Server:
    """A loopback server: path -> (status, headers, body); a body that is shorter than its Content-Length breaks off."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, headers, body = server.answers.get(self.path.partition("?")[0], (404, {}, b"{}"))
                self.send_response(status)
                for key, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def open_url(self, url: str):
        """The opener for `fetch`: https://example.test/x is this server's /x."""
        return urllib.request.urlopen(self.address + url.removeprefix("https://example.test"), timeout=10)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def archive(origin: Path, tmp_path: Path) -> bytes:
    path = tmp_path / "base.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(origin, arcname="base")
    return path.read_bytes()


def assert_nothing_left(folder: Path) -> None:
    assert not folder.exists()
    assert not list(folder.parent.glob(".*part*"))


def test_file_source_copies_and_checks(origin: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "base"
    right = {name: digest(data) for name, data in FILES.items()}
    fetch(BaseCheckpointConfig(source="file", location=str(origin), sha256=right), folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == FILES


@pytest.mark.parametrize(
    ("digests", "name"),
    [({"config.json": "0" * 64}, "config.json"), ({"absent.bin": "0" * 64}, "absent.bin")],
)
def test_wrong_sha256_and_missing_file_leave_nothing(origin: Path, tmp_path: Path, digests: dict, name: str) -> None:
    folder = tmp_path / "checkpoints" / "base"
    with refused(name):
        fetch(BaseCheckpointConfig(source="file", location=str(origin), sha256=digests), folder)
    assert_nothing_left(folder)


def test_a_failed_fetch_keeps_the_checkpoint_that_was_there(origin: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    fetch(BaseCheckpointConfig(source="file", location=str(origin)), folder)
    with pytest.raises(UserError):
        fetch(BaseCheckpointConfig(source="file", location=str(origin), sha256={"config.json": "0" * 64}), folder)
    assert (folder / "config.json").read_bytes() == FILES["config.json"]


def test_missing_folder_and_a_file_for_a_folder(origin: Path, tmp_path: Path) -> None:
    with refused(f"base_checkpoint.location = {tmp_path / 'nowhere'}"):
        fetch(BaseCheckpointConfig(source="file", location=str(tmp_path / "nowhere")), tmp_path / "base")
    with refused(f"base_checkpoint.location = {origin / 'config.json'}", origin):
        fetch(BaseCheckpointConfig(source="file", location=str(origin / "config.json")), tmp_path / "base")


def test_archive_is_unpacked_recorded_and_held_to_the_record(server: Server, archive: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "base"
    source = BaseCheckpointConfig(source="https", location=URL)
    server.answers["/base.tar"] = (200, {}, archive)
    fetch(source, folder, server.open_url)
    assert {n: (folder / n).read_bytes() for n in FILES} == FILES
    assert json.loads((folder / "fetched.json").read_text())["sha256"] == {n: digest(d) for n, d in FILES.items()}

    fetch(source, folder, server.open_url)  # the same bytes again: nothing to say
    changed = archive.replace(FILES["world_model.safetensors"], b"x" * len(FILES["world_model.safetensors"]))
    server.answers["/base.tar"] = (200, {}, changed)
    with refused("world_model.safetensors", "sha256"):
        fetch(source, folder, server.open_url)
    assert (folder / "world_model.safetensors").read_bytes() == FILES["world_model.safetensors"]


@pytest.mark.parametrize("share", [0.5, 0.02])
def test_truncated_archive_leaves_nothing(server: Server, archive: bytes, tmp_path: Path, share: float) -> None:
    folder = tmp_path / "checkpoints" / "base"
    server.answers["/base.tar"] = (200, {"Content-Length": str(len(archive))}, archive[: int(len(archive) * share)])
    with refused(URL):
        fetch(BaseCheckpointConfig(source="https", location=URL), folder, server.open_url)
    assert_nothing_left(folder)


def test_archive_cut_between_members_is_noticed(server: Server, origin: Path, tmp_path: Path) -> None:
    """The cruel case: what arrived is a valid archive of fewer files."""
    path = tmp_path / "cut.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(origin / "config.json", arcname="config.json")
        boundary = tar.offset
        tar.add(origin / "world_model.safetensors", arcname="world_model.safetensors")
    whole = path.read_bytes()
    server.answers["/base.tar"] = (200, {"Content-Length": str(len(whole))}, whole[:boundary])
    with refused(URL):
        fetch(BaseCheckpointConfig(source="https", location=URL), tmp_path / "base", server.open_url)
    assert_nothing_left(tmp_path / "base")


def test_archive_that_reaches_outside_is_refused(server: Server, origin: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(origin / "config.json", arcname="../escaped.json")
    server.answers["/base.tar"] = (200, {}, path.read_bytes())
    with refused(URL, "../escaped.json"):
        fetch(BaseCheckpointConfig(source="https", location=URL), tmp_path / "base", server.open_url)
    assert not (tmp_path / "escaped.json").exists()


def test_https_errors(server: Server, tmp_path: Path) -> None:
    with refused(URL, 404):
        fetch(BaseCheckpointConfig(source="https", location=URL), tmp_path / "base", server.open_url)
    with refused("base_checkpoint.location = http://example.test/base.tar", "https"):
        fetch(BaseCheckpointConfig(source="https", location="http://example.test/base.tar"), tmp_path / "base")
    server.answers["/base.tar"] = (200, {}, b"<html>this is a page</html>" * 100)
    with refused(URL, ".tar"):
        fetch(BaseCheckpointConfig(source="https", location=URL), tmp_path / "base", server.open_url)


def test_https_offline(tmp_path: Path) -> None:
    port = closed_port()
    with refused(f"https://127.0.0.1:{port}/base.tar"):
        fetch(BaseCheckpointConfig(source="https", location=f"https://127.0.0.1:{port}/base.tar"), tmp_path / "base")


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def hub(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A loopback hub with the repository group/model; the hub's cache lies in the test's folder."""
    import huggingface_hub
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    bound = {"etag_timeout": 5, "endpoint": server.address}
    plain = huggingface_hub.snapshot_download
    # The address of the test's hub, where a call names none: stages have no way to.
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *args, **kw: plain(*args, **bound | {k: v for k, v in kw.items() if v is not None})
    )
    publish(server, "group/model", COMMIT, FILES)
    return server


def publish(server: Server, repository: str, commit: str, files: dict[str, bytes]) -> None:
    """Have the loopback hub answer for a repository."""
    tree = [{"type": "file", "path": name, "size": len(data), "oid": digest(data)[:40]} for name, data in files.items()]
    server.answers[f"/api/models/{repository}/tree/{commit}"] = (200, {"Content-Type": "application/json"}, json.dumps(tree).encode())
    for name, data in files.items():
        headers = {"ETag": f'"{digest(data)[:40]}"', "X-Repo-Commit": commit, "Content-Length": str(len(data))}
        server.answers[f"/{repository}/resolve/{commit}/{name}"] = (200, headers, data)


def from_hub(location: str = "group/model", revision: str = COMMIT) -> BaseCheckpointConfig:
    return BaseCheckpointConfig(source="hf", location=location, revision=revision)


def test_hub_snapshot_at_a_commit(hub: Server, tmp_path: Path) -> None:
    fetch(from_hub(), tmp_path / "base", endpoint=hub.address)
    assert {n: (tmp_path / "base" / n).read_bytes() for n in FILES} == FILES
    assert not (tmp_path / "base" / "config.json").is_symlink()
    assert json.loads((tmp_path / "base" / "fetched.json").read_text())["revision"] == COMMIT


@pytest.mark.parametrize("revision", ["main", "v1.0", "abc123"])
def test_a_branch_is_no_revision(tmp_path: Path, revision: str) -> None:
    with refused("base_checkpoint.revision"):
        fetch(from_hub(revision=revision), tmp_path / "base")


@pytest.mark.parametrize(
    ("status", "code", "named"),
    [
        (403, "GatedRepo", "hf auth login"),
        (404, "RepoNotFound", "base_checkpoint.location"),
        (404, "RevisionNotFound", COMMIT),
    ],
)
def test_hub_refusals(hub: Server, tmp_path: Path, status: int, code: str, named: str) -> None:
    hub.answers[f"/api/models/group/model/tree/{COMMIT}"] = (
        status,
        {"X-Error-Code": code, "X-Error-Message": code},
        b"{}",
    )
    with refused("group/model", named):
        fetch(from_hub(), tmp_path / "checkpoints" / "base", endpoint=hub.address)
    assert_nothing_left(tmp_path / "checkpoints" / "base")


@pytest.mark.parametrize("status", [401, 403])  # not logged in; logged in, but the licence is not accepted
def test_a_gated_repository_shows_its_list_and_refuses_its_files(hub: Server, tmp_path: Path, status: int) -> None:
    for name in FILES:
        hub.answers[f"/group/model/resolve/{COMMIT}/{name}"] = (status, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}, b"")
    with refused("group/model", "hf auth login"):
        fetch(from_hub(), tmp_path / "checkpoints" / "base")
    assert_nothing_left(tmp_path / "checkpoints" / "base")


def test_files_that_had_arrived_are_not_fetched_again(hub: Server, tmp_path: Path) -> None:
    """A download that broke off in its second file: the first one is in the hub's cache, also for another process."""
    second = f"/group/model/resolve/{COMMIT}/world_model.safetensors"
    whole = hub.answers[second]
    hub.answers[second] = (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}, b"")
    with pytest.raises(UserError):
        fetch(from_hub(), tmp_path / "base")
    hub.answers[second] = whole
    del hub.answers[f"/group/model/resolve/{COMMIT}/config.json"]
    fetch(from_hub(), tmp_path / "base")
    assert {n: (tmp_path / "base" / n).read_bytes() for n in FILES} == FILES


def test_hub_offline(hub: Server, tmp_path: Path) -> None:
    with refused("group/model", "base_checkpoint.source: file"):
        fetch(from_hub(), tmp_path / "base", endpoint=f"http://127.0.0.1:{closed_port()}")


def test_hub_repository_without_the_file_that_is_known_to_be_needed(
    hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fetching.KNOWN, "group", fetching.HubModel("group/model", COMMIT, ("config.json", "model.pt")))
    with refused("group/model", "model.pt"):
        fetch(from_hub("group"), tmp_path / "base", endpoint=hub.address)


def test_known_models_are_pinned() -> None:
    assert known_model("yjguo/Ctrl-World") is KNOWN["ctrl-world"] is known_model("ctrl_world")
    for model in KNOWN.values():
        assert model.revision is None or fetching.COMMIT.fullmatch(model.revision)
    assert known_model("somebody/else") is None


def test_a_part_of_a_repository_is_recorded_and_held_to_the_record_with_the_rest(hub: Server, tmp_path: Path) -> None:
    """The tokenizer alone, then all of CLIP: one record, and only what was asked for."""
    model = HubModel("group/model", COMMIT, ("config.json",))
    record = tmp_path / "checkpoints" / "fetched" / f"group_model@{COMMIT}.json"
    fetch_model(model, tmp_path / "part")
    assert {p.name for p in (tmp_path / "part").iterdir()} == {"config.json", "fetched.json"}
    assert json.loads(record.read_text())["sha256"] == {"config.json": digest(FILES["config.json"])}
    whole = dataclasses.replace(model, files=tuple(FILES))
    fetch_model(whole, tmp_path / "whole")
    assert json.loads(record.read_text())["sha256"] == {name: digest(data) for name, data in FILES.items()}
    fetch_model(model, tmp_path / "part")  # the record has more files than are asked for now
    assert {p.name for p in (tmp_path / "part").iterdir()} == {"config.json", "fetched.json"}
    record.write_text(record.read_text().replace(digest(FILES["config.json"]), "0" * 64))
    for again in (model, whole):
        with refused("config.json", "sha256"):
            fetch_model(again, tmp_path / "again")
    assert_nothing_left(tmp_path / "again")


def test_a_model_without_a_commit_on_record_asks_for_one(hub: Server, tmp_path: Path) -> None:
    publish(hub, "jaibrdhn/persistworld", COMMIT, {"checkpoint-5760-merged.pt": b"weights", "README.md": b"not needed"})
    args = argparse.Namespace(name="persistworld", output=tmp_path / "model", revision=None)
    with refused("jaibrdhn/persistworld", "hf models info jaibrdhn/persistworld", "--revision"):
        fetch_tool.main(Params(), args)
    args.revision = COMMIT
    fetch_tool.main(Params(), args)
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"checkpoint-5760-merged.pt", "fetched.json"}


@pytest.mark.parametrize("name", ["svd", "clip", "ctrl-world"])
def test_the_tool_fetches_what_is_needed_of_a_known_model(
    hub: Server, tmp_path: Path, name: str, capsys: pytest.CaptureFixture
) -> None:
    model = KNOWN[name]
    publish(hub, model.repository, model.revision, {file: file.encode() for file in (*model.files, "other.bin")})
    args = argparse.Namespace(name=name, output=tmp_path / name, revision=None)
    for _ in range(2):  # and again over its own
        fetch_tool.main(Params(), args)
    files = {p.relative_to(tmp_path / name).as_posix(): p.read_text() for p in (tmp_path / name).rglob("*") if p.is_file()}
    record = json.loads(files.pop("fetched.json"))
    assert files == {file: file for file in model.files}
    assert record["sha256"] == {file: digest(file.encode()) for file in model.files}
    assert ("import-checkpoint" if name in ("svd", "clip") else "base_checkpoint") in capsys.readouterr().out


def test_the_tool_replaces_nothing_that_it_did_not_fetch(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with refused(f"--output {tmp_path / 'mine'}"):
        fetch_tool.main(Params(), argparse.Namespace(name="clip", output=tmp_path / "mine", revision=None))
    assert (tmp_path / "mine" / "thesis.tex").exists()


# The stage


def test_stage_copies_a_checkpoint_folder(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = dataclasses.replace(Params(), base_checkpoint=BaseCheckpointConfig(source="file", location=str(origin)))
    for _ in range(2):  # and again over what is there
        base_checkpoint.main(params, argparse.Namespace(name="base"))
        assert {p.name: p.read_bytes() for p in Path("checkpoints/base").iterdir()} == FILES
    assert not Path("checkpoints/fetched/base").exists()


def test_stage_imports_a_flat_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = WorldModelConfig(
        autoencoder=AutoencoderConfig(channels=(32,), layers=1),
        unet=UNetConfig(channels=(32, 32), heads=(1, 1), layers=1, cross_attention_dim=32, addition_time_embed_dim=8),
        use_text=False,
    )
    shapes = flat_shapes(config, CTRL_WORLD_STATISTICS, None)
    source = tmp_path / "source"
    source.mkdir()
    write_pickle({name: torch.randn(shape) for name, shape in shapes.items()}, source / "checkpoint-1.pt")
    settings = BaseCheckpointConfig(source="file", location=str(source))
    params = dataclasses.replace(Params(), world_model=config, base_checkpoint=settings)
    with refused("stat.json"):
        base_checkpoint.main(params, argparse.Namespace(name="base"))
    (source / "stat.json").write_text(json.dumps({"state_01": [-1] * 7, "state_99": [1] * 7}))
    base_checkpoint.main(params, argparse.Namespace(name="base"))
    assert load_base_model("checkpoints/base").statistics.high == (1.0,) * 7
    assert not Path("checkpoints/fetched/base").exists()


def test_stage_takes_the_tokenizer_of_clip_and_records_it(hub: Server, tmp_path: Path) -> None:
    """A flat checkpoint as `persistworld fetch` leaves it: Ctrl-World's statistics, and CLIP's tokenizer from the hub."""
    config = WorldModelConfig(
        autoencoder=AutoencoderConfig(channels=(32,), layers=1),
        unet=UNetConfig(channels=(32, 32), heads=(1, 1), layers=1, cross_attention_dim=32, addition_time_embed_dim=8),
        text_encoder=TextEncoderConfig(hidden=16, layers=1, heads=1, projection=16, vocabulary=60, length=8),
    )
    tokenizer = train_tokenizer(["push the red block"], config.text_encoder)
    save_tokenizer(tokenizer, tmp_path)
    tokens = (tmp_path / "tokenizer.json").read_bytes()
    publish(hub, TOKENIZER.repository, TOKENIZER.revision, {"tokenizer.json": tokens, "pytorch_model.bin": b"600 MB"})
    source = tmp_path / "source"
    source.mkdir()
    shapes = flat_shapes(config, CTRL_WORLD_STATISTICS, tokenizer)
    write_pickle({name: torch.randn(shape) for name, shape in shapes.items()}, source / "c.pt")
    (source / "fetched.json").write_text(json.dumps({"location": "yjguo/Ctrl-World"}))
    params = dataclasses.replace(Params(), world_model=config, base_checkpoint=BaseCheckpointConfig(source="file", location=str(source)))
    base_checkpoint.main(params, argparse.Namespace(name="base"))
    manifest = json.loads(Path("checkpoints/base/manifest.json").read_text())
    assert manifest["parents"] == {"imported": hashlib.sha256((source / "c.pt").read_bytes()).hexdigest(), "tokenizer": digest(tokens)}
    [record] = Path("checkpoints/fetched").iterdir()
    assert json.loads(record.read_text())["sha256"] == {"tokenizer.json": digest(tokens)}
    assert load_base_model("checkpoints/base").statistics == CTRL_WORLD_STATISTICS

    two = dataclasses.replace(params, episodes=EpisodesConfig(views=("exterior_1", "wrist")))
    with refused("episodes.views = exterior_1, wrist", 3, 2):
        base_checkpoint.main(two, argparse.Namespace(name="base"))
    record.write_text(record.read_text().replace(digest(tokens), "0" * 64))
    with refused("tokenizer.json", "sha256", "c.pt"):
        base_checkpoint.main(params, argparse.Namespace(name="base"))


@pytest.mark.parametrize("location", ["svd", "clip", "openai/clip-vit-base-patch32"])
def test_stage_refuses_a_part_of_a_model_before_it_is_fetched(hub: Server, location: str) -> None:
    settings = BaseCheckpointConfig(source="hf", location=location, revision=COMMIT)
    with refused(f"base_checkpoint.location = {location}", "persistworld import-checkpoint"):
        base_checkpoint.main(dataclasses.replace(Params(), base_checkpoint=settings), argparse.Namespace(name="base"))
    assert not Path("checkpoints").exists()


@pytest.mark.parametrize("file", ["config.json", "unet/config.json"])
def test_stage_refuses_folders_of_clip_and_svd(tmp_path: Path, file: str) -> None:
    (tmp_path / "source" / file).parent.mkdir(parents=True)
    (tmp_path / "source" / file).write_text('{"model_type": "clip"}')
    settings = BaseCheckpointConfig(source="file", location=str(tmp_path / "source"))
    with refused(f"base_checkpoint.location = {settings.location}", "persistworld import-checkpoint"):
        base_checkpoint.main(dataclasses.replace(Params(), base_checkpoint=settings), argparse.Namespace(name="base"))
    assert not Path("checkpoints/base").exists() and not Path("checkpoints/fetched/base").exists()


def test_views_of_a_checkpoint_may_have_other_names_but_are_as_many(origin: Path) -> None:
    settings = BaseCheckpointConfig(source="file", location=str(origin))
    ours = dataclasses.replace(Params(), base_checkpoint=settings, episodes=EpisodesConfig(views=("left", "right", "hand")))
    base_checkpoint.main(ours, argparse.Namespace(name="base"))
    fewer = dataclasses.replace(ours, episodes=EpisodesConfig(views=("left", "hand")))
    with refused("episodes.views = left, hand", 3, 2):
        base_checkpoint.main(fewer, argparse.Namespace(name="base"))


def test_stage_names_a_folder_without_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    params = dataclasses.replace(Params(), base_checkpoint=BaseCheckpointConfig(source="file", location="empty"))
    with refused("base_checkpoint.location = empty", "config.json", ".pt"):
        base_checkpoint.main(params, argparse.Namespace(name="base"))
