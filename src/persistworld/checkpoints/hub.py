"""Fetches a base checkpoint: from a folder, as a .tar over https, or from the model hub at a pinned commit.

The folder is written atomically, after every sha256 is checked. Digests that are not in `params.yaml` are recorded at the
first download, and later downloads are checked against the record. The record is kept in `checkpoints/fetched/`, which
survives when a workflow engine deletes the checkpoint, and in the fetched folder (`fetched.json`).
"""

import dataclasses
import functools
import http.client
import re
import shutil
import tarfile
import textwrap
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from persistworld.checkpoints.layout import MANIFEST
from persistworld.config.data import COMMIT, BaseCheckpointConfig
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path, read_json, sha256, user_path, write_json
from persistworld.runtime.workspace import CHECKPOINTS

RECORD = "fetched.json"
RECORDS = CHECKPOINTS / "fetched"
WANTED = "params.yaml, base_checkpoint.sha256"
UrlOpener = Callable[[str], http.client.HTTPResponse]


@dataclass(frozen=True)
class HubModel:
    """A repository on the model hub, its pinned commit (None: the user gives one), and the required files (empty: all)."""

    repository: str
    revision: str | None
    files: tuple[str, ...] = ()


# The checkpoints of the paper's setting (from the READMEs of Ctrl-World and PersistWorld), with the required files.
KNOWN = {
    "svd": HubModel(
        "stabilityai/stable-video-diffusion-img2vid",
        "9cf024d5bfa8f56622af86c884f26a52f6676f2e",
        (
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.safetensors",
        ),
    ),
    "clip": HubModel(
        "openai/clip-vit-base-patch32",
        "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
        ("config.json", "tokenizer.json", "pytorch_model.bin"),
    ),
    "ctrl-world": HubModel("yjguo/Ctrl-World", "8cf814693f411962dc866a2ddb5b785afd17a93a", ("checkpoint-10000.pt",)),
    # Its README names no commit, so the user must give one.
    "persistworld": HubModel("jaibrdhn/persistworld", None, ("checkpoint-5760-merged.pt",)),
}
PARTS = ("svd", "clip")  # parts of a world model, not world models themselves
TOKENIZER = dataclasses.replace(KNOWN["clip"], files=("tokenizer.json",))


def known_model(location: str) -> HubModel | None:
    """The entry of `KNOWN` for a short name (`svd`) or a repository (`yjguo/Ctrl-World`), or None."""
    named = KNOWN.get(location.replace("_", "-"))
    return named or next((m for m in KNOWN.values() if m.repository == location), None)


def fetched_model(folder: Path) -> HubModel | None:
    """The entry of `KNOWN` that `folder` was fetched from, according to its record, or None."""
    return known_model(read_json(folder / RECORD)["location"]) if (folder / RECORD).is_file() else None


def fetch(
    source: BaseCheckpointConfig,
    folder: Path,
    open_url: UrlOpener | None = None,
    endpoint: str | None = None,
    records: Path = RECORDS,
) -> None:
    """Fetch `source` into `folder`. An existing folder is replaced after everything is fetched and checked.

    open_url: opens an https URL (default: with the system's certificates); endpoint: the hub's address (default: that of
    huggingface_hub); records: the folder of recorded digests. For a repository in `KNOWN`, only the required files are
    fetched. Raises UserError if offline; for a gated or missing repository, a missing revision or file, or a branch as
    revision; for a truncated or damaged archive, a wrong sha256 (also against a folder's manifest.json), or a full disk.
    """
    if source.source == "hf":
        model = known_model(source.location) or HubModel(source.location, None)
        fetch_model(dataclasses.replace(model, revision=source.revision or model.revision), folder, source.sha256, endpoint, records)
        return
    with atomic_path(folder) as part:
        part.mkdir()
        if source.source == "file":
            # Users may change a local folder, so its digests are not recorded. base_checkpoint.sha256 can pin it.
            _copy(user_path(source.location), part)
            digests = _digests(part)
            _check(digests, source.sha256, source.location, WANTED)
            _check_manifest(digests, part, source.location)
        else:
            _download_archive(source.location, part, open_url or _open_https)
            entry = {"source": "https", "location": source.location, "revision": None}
            _record(part, (), source.sha256, entry, records)


def fetch_model(
    model: HubModel, folder: Path, wanted: dict[str, str] | None = None, endpoint: str | None = None, records: Path = RECORDS
) -> None:
    """Fetch `model.files` (empty: all) of a hub repository, like `fetch`. wanted: file -> sha256, checked in addition to the record."""
    with atomic_path(folder) as part:
        part.mkdir()
        snapshot = hub_snapshot(model.repository, model.revision, model.files, endpoint)
        if model.files:  # the cache may hold other files of the same commit
            for name in model.files:
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(snapshot / name, part / name)
        else:
            _copy(snapshot, part)
        entry = {"source": "hf", "location": model.repository, "revision": model.revision}
        _record(part, model.files, wanted or {}, entry, records)


def hub_snapshot(repository: str, revision: str | None, files: Sequence[str] = (), endpoint: str | None = None) -> Path:
    """Download a repository's `files` (empty: all) at a commit. Returns the folder in the hub's cache.

    After an interrupted download, complete files are kept, and a partial file is downloaded again. Raises UserError as
    `fetch` does.
    """
    from huggingface_hub import errors, snapshot_download

    if revision is None or not COMMIT.fullmatch(revision):
        why = "no commit of it is on record here" if revision is None else f"{revision} is no commit: branches and tags move"
        raise UserError(
            f"{repository}: {why}; look one up with `hf models info {repository}` (40 hex digits, sha) and name it, as "
            "base_checkpoint.revision or --revision"
        )
    try:
        folder = snapshot_download(repository, revision=revision, allow_patterns=list(files) or None, endpoint=endpoint)
    except errors.GatedRepoError:
        raise UserError(
            f"{repository}: access is gated; accept its licence on its page, then `hf auth login`, and run again"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{repository}: has no such commit as {revision}; is base_checkpoint.revision (--revision) right?") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"{repository}: no such repository, or a private one (`hf auth login`); is base_checkpoint.location right?"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError) as error:
        raise UserError(_offline(repository, error)) from None
    except errors.HfHubHTTPError as error:
        raise UserError(
            f"{repository}: the hub answered: {' '.join(str(error).split())[:200]}; try again later"
        ) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in (
            "httpx",
            "httpx2",
        ):  # the hub's client; which one depends on its version
            raise
        raise UserError(_offline(repository, error)) from None
    missing = [name for name in files if not (Path(folder) / name).exists()]
    if missing:
        raise UserError(f"{repository} at {revision}: has no file {', '.join(missing)}; choose another revision")
    return Path(folder)


def _copy(origin: Path, part: Path) -> None:
    if origin.is_file():
        raise UserError(f"base_checkpoint.location = {origin}: is a file; name the folder that it lies in, {origin.parent}")
    if not origin.is_dir():
        raise UserError(f"base_checkpoint.location = {origin}: no such folder")
    shutil.copytree(origin, part, dirs_exist_ok=True, ignore=lambda _, names: [n for n in names if n == RECORD])


def _download_archive(url: str, part: Path, open_url: UrlOpener) -> None:
    """Unpack a .tar while it downloads. If a single folder contains all files, it is removed."""
    if not url.startswith("https://"):
        raise UserError(f"base_checkpoint.location = {url}: source https needs a URL that starts with https://")
    try:
        with open_url(url) as response:
            stream = _Counted(response)
            with tarfile.open(fileobj=stream, mode="r|*") as archive:
                for member in archive:
                    _unpack(archive, member, part, url)
            while stream.read(1 << 20):  # padding after the last member
                pass
            expected = response.headers.get("Content-Length")
            if expected is not None and stream.count != int(expected):
                raise UserError(
                    f"{url}: the download broke off after {stream.count:,} of {int(expected):,} bytes; run again"
                )
    except urllib.error.HTTPError as error:
        raise UserError(
            f"{url}: the server answered {error.code} {error.reason}; is base_checkpoint.location right?"
        ) from None
    except urllib.error.URLError as error:
        raise UserError(_offline(url, error.reason)) from None
    except (tarfile.TarError, EOFError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise UserError(f"{url}: the download broke off, or is no .tar ({error}); run again") from None
    inside = list(part.iterdir())
    if len(inside) == 1 and inside[0].is_dir():
        for path in list(inside[0].iterdir()):
            path.rename(part / path.name)
        inside[0].rmdir()


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, part: Path, url: str) -> None:
    """Unpack one file or folder. The first releases of Python 3.11 lack tarfile's filters, so the checks are done here."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise UserError(f"{url}: refused, '{member.name}' in the archive is a link or would be written outside its folder")
    target = part / path
    (target if member.isdir() else target.parent).mkdir(parents=True, exist_ok=True)
    if (content := archive.extractfile(member)) is not None:
        with content, target.open("wb") as file:
            shutil.copyfileobj(content, file)


class _Counted:
    """A stream that counts its bytes: if a download stops between two members, tarfile does not report the truncation."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.count = stream, 0

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.count += len(data)
        return data


def _digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _record(part: Path, files: Sequence[str], wanted: dict[str, str], entry: dict[str, str | None], records: Path) -> None:
    """Check the files downloaded into `part` against `wanted` and the record of earlier downloads, and record new digests.

    files: the files that were requested; empty: all.
    """
    name, digests = str(entry["location"]), _digests(part)
    _check(digests, wanted, name, WANTED)
    record = records / (_slug(entry) + ".json")
    known = read_json(record)["sha256"] if record.exists() else {}
    held = {file: digest for file, digest in known.items() if not files or file in files}  # an earlier download may have had other files
    _check(digests, held, name, f"the record of its first download, {record} (delete it if the new files are right)")
    write_json(part / RECORD, entry | {"sha256": digests})
    if digests.keys() - known.keys():
        write_json(record, entry | {"sha256": known | digests})


def _check_manifest(digests: dict[str, str], part: Path, location: str) -> None:
    """Check one of this project's checkpoint folders against the digests in its manifest.json. Other files in the folder are allowed."""
    if MANIFEST not in digests:
        return
    manifest = read_json(part / MANIFEST)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if isinstance(files, dict):
        advice = f"its {MANIFEST}: damaged; copy it again, or if you changed it on purpose, put the new sha256 there, or delete {MANIFEST}"
        _check(digests, files, location, advice)


def _check(digests: dict[str, str], wanted: dict[str, str], location: str, where: str) -> None:
    for name, digest in wanted.items():
        if name not in digests:
            raise UserError(f"{location}: lacks the file {name}, which is named in {where}")
        if digests[name] != digest.lower():
            raise UserError(f"{location}: {name} has sha256 {digests[name]}, not {digest} as in {where}")


def _offline(what: str, error: object) -> str:
    reason = textwrap.shorten(str(error), 120, placeholder=" ...")
    advice = "connect, or fetch it elsewhere and set base_checkpoint.source: file with its folder"
    return f"{what}: cannot be reached ({reason}); {advice}"


def _slug(entry: dict[str, str | None]) -> str:
    name = f"{entry['location']}@{entry['revision']}" if entry["revision"] else str(entry["location"])
    return re.sub(r"[^A-Za-z0-9._@-]+", "_", name)


_open_https = functools.partial(urllib.request.urlopen, timeout=60)
