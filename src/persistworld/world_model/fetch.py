"""Fetch a base checkpoint: from a folder, as a .tar over https, or from the model hub at a pinned commit.

Nothing is ever left half-fetched: a folder appears whole, with every sha256 checked, or not at all. Digests that
`params.yaml` does not name are recorded at the first download, beside the checkpoint (`fetched/`, which survives when a
workflow engine deletes the checkpoint) and in it (`fetched.json`), and later downloads are held against the record.
"""

import functools
import http.client
import re
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from persistworld.errors import UserError
from persistworld.files import atomic_path, read_json, sha256, write_json
from persistworld.params import BaseCheckpoint

RECORD = "fetched.json"
COMMIT = re.compile(r"[0-9a-f]{40}")
UrlOpener = Callable[[str], http.client.HTTPResponse]


@dataclass(frozen=True)
class HubModel:
    """A repository on the model hub: its pinned commit (None: none is on record, the user names one) and the files
    that are needed.
    """

    repository: str
    revision: str | None
    files: tuple[str, ...]
    gated: bool = False


# What the paper's setting is made of (Ctrl-World's and PersistWorld's READMEs), and what of it is needed here.
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
        gated=True,
    ),
    "clip": HubModel(
        "openai/clip-vit-base-patch32",
        "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268",
        ("config.json", "tokenizer.json", "pytorch_model.bin"),
    ),
    "ctrl_world": HubModel("yjguo/Ctrl-World", "8cf814693f411962dc866a2ddb5b785afd17a93a", ("checkpoint-10000.pt",)),
    "persistworld": HubModel("jaibrdhn/persistworld", None, ("checkpoint-5760-merged.pt",)),
}
TOKENIZER = HubModel(KNOWN["clip"].repository, KNOWN["clip"].revision, ("tokenizer.json",))


def known_model(location: str) -> HubModel | None:
    """The entry of `KNOWN` for a short name (`svd`) or a repository (`yjguo/Ctrl-World`)."""
    return KNOWN.get(location) or next((m for m in KNOWN.values() if m.repository == location), None)


def fetch(source: BaseCheckpoint, folder: Path, open_url: UrlOpener | None = None, endpoint: str | None = None) -> None:
    """Make `folder` from `source`, replacing what is there once everything is fetched and checked.

    `open_url` opens an https URL (the system's certificates by default); `endpoint` is the hub's address
    (huggingface_hub's default). Raises UserError: offline, gated, no such repository, revision or file, a branch for a
    revision, a truncated or damaged archive, a wrong sha256, a full disk.
    """
    with atomic_path(folder) as part:
        part.mkdir()
        match source.source:
            case "file":
                _copy(Path(source.location), part)
            case "https":
                _download_archive(source.location, part, open_url or _open_https)
            case "hf":
                _copy(hub_snapshot(source.location, source.revision, endpoint), part)
        digests = {
            path.relative_to(part).as_posix(): sha256(path) for path in sorted(part.rglob("*")) if path.is_file()
        }
        _check(digests, source.sha256, source.location, "params.yaml, base_checkpoint.sha256")
        if source.source == "file":
            return  # a local folder is the user's own to change; base_checkpoint.sha256 pins it where that is wanted
        record = folder.parent / "fetched" / (_slug(source) + ".json")
        known = read_json(record)["sha256"] if record.exists() else {}
        _check(
            digests,
            known,
            source.location,
            f"the record of its first download, {record} (delete it if the new files are right)",
        )
        entry = {"source": source.source, "location": source.location, "revision": source.revision, "sha256": digests}
        write_json(part / RECORD, entry)
        if not record.exists():
            write_json(record, entry)


def hub_snapshot(location: str, revision: str | None, endpoint: str | None = None) -> Path:
    """A repository's files at a commit, in the hub's own cache: an interrupted download takes up where it stopped.

    Of a repository in `KNOWN` only the files that are needed. Raises UserError as `fetch` does.
    """
    from huggingface_hub import errors, snapshot_download

    model = known_model(location) or HubModel(location, None, ())
    repository, revision = model.repository, revision or model.revision
    if revision is None or not COMMIT.fullmatch(revision):
        raise UserError(
            f"base_checkpoint.revision = {revision}: branches and tags move; "
            f"give the 40 hex digits of a commit of {repository}"
        )
    try:
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=list(model.files) or None, endpoint=endpoint
        )
    except errors.GatedRepoError:
        raise UserError(
            f"{repository}: access is gated; accept its licence on its page, then `hf auth login`, and run again"
        ) from None
    except errors.RevisionNotFoundError:
        raise UserError(f"base_checkpoint.revision = {revision}: {repository} has no such commit") from None
    except errors.RepositoryNotFoundError:
        raise UserError(
            f"base_checkpoint.location = {location}: no such repository, or a private one (`hf auth login`)"
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
    missing = [name for name in model.files if not (Path(folder) / name).exists()]
    if missing:
        raise UserError(f"{repository} at {revision}: has no file {', '.join(missing)}; choose another revision")
    return Path(folder)


def _copy(origin: Path, part: Path) -> None:
    if not origin.is_dir():
        raise UserError(f"base_checkpoint.location = {origin}: no such folder")
    shutil.copytree(origin, part, dirs_exist_ok=True, ignore=lambda _, names: [n for n in names if n == RECORD])


def _download_archive(url: str, part: Path, open_url: UrlOpener) -> None:
    """Unpack a .tar as it comes in; a single folder around the files is taken off."""
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
    """One file or folder. By hand, because tarfile's own filters are missing from the first releases of Python 3.11."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
        raise UserError(f"{url}: refused, '{member.name}' in the archive is a link or would be written outside its folder")
    target = part / path
    (target if member.isdir() else target.parent).mkdir(parents=True, exist_ok=True)
    if (content := archive.extractfile(member)) is not None:
        with content, target.open("wb") as file:
            shutil.copyfileobj(content, file)


class _Counted:
    """A stream that counts what passes: tarfile takes the end of the stream at a member's boundary for the end of the
    archive.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.count = stream, 0

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.count += len(data)
        return data


def _check(digests: dict[str, str], wanted: dict[str, str], location: str, where: str) -> None:
    for name, digest in wanted.items():
        if name not in digests:
            raise UserError(f"{location}: lacks the file {name}, which is named in {where}")
        if digests[name] != digest.lower():
            raise UserError(f"{location}: {name} has sha256 {digests[name]}, not {digest} as in {where}")


def _offline(what: str, error: object) -> str:
    reason = " ".join(str(error).split())[:120]
    mend = "connect, or fetch it elsewhere and set base_checkpoint.source: file with its folder"
    return f"{what}: cannot be reached ({reason}); {mend}"


def _slug(source: BaseCheckpoint) -> str:
    name = f"{source.location}@{source.revision}" if source.revision else source.location
    return re.sub(r"[^A-Za-z0-9._@-]+", "_", name)


_open_https = functools.partial(urllib.request.urlopen, timeout=60)
