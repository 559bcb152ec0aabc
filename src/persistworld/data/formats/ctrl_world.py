"""Ctrl-World's processed layout: DROID at 5 Hz and 192x320, with or without latents.

    annotation/{train,val}/{id}.json            states, instruction, success, the paths below
    videos/{train,val}/{id}/{0,1,2}.mp4         exterior 1, exterior 2, wrist
    latent_videos/{train,val}/{id}/{0,1,2}.pt   (T, 4, 24, 40) float32, scaled (optional)

An irregularity that can be handled becomes one of the episode's `notes`. One that cannot raises BadEpisode.
"""

import functools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from persistworld.data.episodes import NO_INSTRUCTION, VIEWS, BadEpisode, Episode, recorded_success
from persistworld.data.formats.clocks import LACKING, SURPLUS
from persistworld.data.formats.listing import cut, whole
from persistworld.data.formats.reading import odd_episode, read_mapping
from persistworld.data.formats.views import View, length_of, view_batches, view_notes, whole_file
from persistworld.data.formats.words import COLUMNS, first_words
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import disguise

if TYPE_CHECKING:
    import torch

FPS = 5.0  # by the layout's definition: every third frame of DROID's 15 Hz
SKIP = 3
FOURTH = "exterior_3"  # the name of a fourth video
SPLITS = {"train": "train", "val": "validation"}  # folder -> our name


class ProcessedEpisodes:
    """The reader of the layout (EpisodeSource). An episode's index is its id if that is a number. Other ids are sorted
    alphabetically and get the indices after the largest number."""

    fps = FPS

    def __init__(self, root: str | Path) -> None:
        """List the annotations. Raises UserError when there are none, or when two have the same id."""
        self.root = Path(root)
        self._paths = _by_index(self.root / "annotation")
        self.views = (*VIEWS, FOURTH)[: self._number_of_views()]
        self._measured = functools.lru_cache(maxsize=4)(self._measure)

    def _number_of_views(self) -> int:
        """The number of views in the first readable annotation. All episodes of a data set should have the same cameras."""
        for index, path in self._paths.items():
            try:
                videos = _read(index, path).get("videos") or VIEWS
                return len(videos) if isinstance(videos, list | tuple) else len(VIEWS)
            except BadEpisode:
                continue
        raise UserError(f"{self.root}/annotation: no file there can be read; process the episodes again")

    def indices(self) -> list[int]:
        """The indices of all annotated episodes, ascending."""
        return list(self._paths)

    def split(self, index: int) -> str:
        """'train' or 'validation', from the episode's folder; its index does not matter. Raises BadEpisode."""
        return SPLITS[self._path(index).parent.name]

    def episode(self, index: int) -> Episode:
        """Read one annotation. Raises BadEpisode when its states are missing or not finite, or their number differs from the frames'."""
        path = self._path(index)
        raw = _read(index, path)
        with odd_episode(index, path):
            return self._episode(index, path, raw)

    def _episode(self, index: int, path: Path, raw: dict[str, Any]) -> Episode:
        rows = _rows(index, path, raw)
        pose = _floats(index, raw, "states")[:rows]
        if not np.isfinite(pose).all():
            raise BadEpisode(index, f"the pose is not finite at frame {int(np.argmin(np.isfinite(pose).all(1)))}")
        notes: list[str] = []
        instruction = _instruction(index, raw, notes)
        joints = _joints(index, raw, rows, notes)
        action = _thinned(index, raw, ("action.cartesian_position", "action.gripper_position"), rows)
        if str(raw.get("episode_id")) != path.stem:
            notes.append("episode_id is not the file's name")
        elif not isinstance(raw["episode_id"], int):
            notes.append("episode_id is not a number")
        length, _, views = self._measured(index)
        notes += [f"{'no' if v.fault == 'missing' else 'broken'} video of {name}" for name, v in views.items() if v.fault]
        notes += view_notes(rows, views, FPS)
        try:
            success = recorded_success(index, raw.get("success"))
        except BadEpisode as error:
            raise BadEpisode(index, f"{path}: {error.reason}") from None
        return cut(Episode(index, instruction, FPS, pose, joints, action, success, tuple(notes)), length)

    def _measure(self, index: int) -> tuple[int, int, dict[str, View]]:
        """The episode's common length, its number of rows, and its views.

        Raises BadEpisode when the annotation does not state a valid length, or when two views are the same file.
        """
        path = self._path(index)
        raw = _read(index, path)
        with odd_episode(index, path):
            rows = _rows(index, path, raw)
            files = {view: self._file(index, raw, "video", view) for view in self.views}
        twice = [view for view, file in files.items() if list(files.values()).count(file) > 1]
        if twice:
            raise BadEpisode(index, f"{path}: {' and '.join(twice)} are one video, {files[twice[0]]}")
        views = {view: whole_file(file) for view, file in files.items()}
        return length_of(rows, views), rows, views

    def frames(self, index: int, view: str) -> np.ndarray:
        """One view, (T, H, W, 3) uint8. Raises BadEpisode when the video is missing, broken or has another length."""
        return np.concatenate(list(self.frame_batches(index, view)))

    def frame_batches(self, index: int, view: str, stride: int = 1, batch: int = 64) -> Iterator[np.ndarray]:
        """Every `stride`-th of these frames, in batches of `batch`. Raises the same errors when it reaches the broken frame."""
        if view not in self.views:
            raise UserError(f"{self.root}: no view {view}; it has {', '.join(self.views)}")
        length, rows, views = self._measured(index)
        return view_batches(index, rows, length, views[view], stride, batch)

    def latents(self, index: int, view: str) -> "torch.Tensor | None":
        """The recorded, scaled latents of one view, (T, C, h, w) float32; None when there is no file.

        Raises BadEpisode unless the file holds one tensor with as many frames as the episode (a few more are cut).
        """
        import torch  # here, since the other methods do without: a stage that needs no torch starts three seconds earlier

        raw = _read(index, self._path(index))
        path = self._file(index, raw, "latent_video", view)
        if not path.is_file():
            return None
        try:
            latents = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise BadEpisode(index, f"latents {path} cannot be read ({disguise(path) or str(error).splitlines()[0]})") from None
        length, rows, _ = self._measured(index)
        if not isinstance(latents, torch.Tensor) or latents.ndim != 4 or not length <= len(latents) <= rows + SURPLUS:
            found = tuple(latents.shape) if isinstance(latents, torch.Tensor) else type(latents).__name__
            raise BadEpisode(index, f"latents {path} hold {found}, not ({length}, C, h, w)")
        return latents[:length].detach().float()

    def masks(self, index: int) -> None:
        """The layout has no masks."""

    def _path(self, index: int) -> Path:
        if index not in self._paths:
            raise BadEpisode(index, f"no annotation in {self.root / 'annotation'}")
        return self._paths[index]

    def _file(self, index: int, raw: dict[str, Any], kind: str, view: str) -> Path:
        """The path of a view's video or latents (`kind`): the path in the annotation, or else the layout's default."""
        if view not in self.views:
            raise UserError(f"{self.root}: no view {view}; it has {', '.join(self.views)}")
        number, folder = self.views.index(view), f"{kind}s"
        listed = raw.get(folder) or []
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise BadEpisode(index, f"{self._path(index)}: {folder} is not a list with a {kind}_path each")
        if number < len(listed) and listed[number].get(f"{kind}_path"):
            return self.root / listed[number][f"{kind}_path"]
        path, suffix = self._path(index), "mp4" if kind == "video" else "pt"
        return self.root / folder / path.parent.name / path.stem / f"{number}.{suffix}"


def _by_index(folder: Path) -> dict[int, Path]:
    paths = sorted(folder.glob("*/*.json"))
    strange = {path.parent.name for path in paths} - SPLITS.keys()
    if strange or not paths:
        found = f"a split {min(strange)}" if strange else "no annotations"
        raise UserError(f"{folder}: {found}; the layout is annotation/train/*.json and annotation/val/*.json")
    numbered = [path for path in paths if path.stem.isdecimal()]
    named = sorted((path for path in paths if not path.stem.isdecimal()), key=lambda path: path.stem)
    after = max((int(path.stem) for path in numbered), default=-1) + 1
    pairs = [(int(path.stem), path) for path in numbered] + list(enumerate(named, after))
    ids: dict[int | str, Path] = {}
    for index, path in pairs:
        known = ids.setdefault(index if index < after else path.stem, path)
        if known is not path:
            raise UserError(f"{path}: the same episode as {known}; remove one of them")
    return dict(sorted(pairs))


def _read(index: int, path: Path) -> dict[str, Any]:
    try:
        return read_mapping(path)
    except (UserError, OSError) as error:
        raise BadEpisode(index, f"{path} cannot be read ({str(error).removeprefix(f'{path}: ')})") from None


def _rows(index: int, path: Path, raw: dict[str, Any]) -> int:
    """The number of rows of an annotation: its states, or `video_length` if that is one fewer. Raises BadEpisode if they differ by more."""
    states = _floats(index, raw, "states")
    if states is None or not len(states):
        raise BadEpisode(index, f"{path} has no states")
    said = raw.get("video_length", len(states))
    length = whole(said)
    if length is None or length < 1:
        raise BadEpisode(index, f"{path}: video_length = {said!r}, expected the number of frames")
    if abs(length - len(states)) > LACKING:
        raise BadEpisode(index, f"{path} has {len(states)} states for {length} frames")
    return min(length, len(states))


def _instruction(index: int, raw: dict[str, Any], notes: list[str]) -> str:
    texts = raw.get("texts")
    if texts is not None and not isinstance(texts, list | str):
        raise BadEpisode(index, f"texts is {type(texts).__name__}, not a list of sentences")
    words = first_words([texts, *(raw.get(name) for name in COLUMNS)])
    if not words:
        notes.append(NO_INSTRUCTION)
    return words


def _joints(index: int, raw: dict[str, Any], length: int, notes: list[str]) -> np.ndarray | None:
    """(T, 7) rad: `joints` without its last value, the gripper; or every third raw joint position; None without either."""
    joints = _floats(index, raw, "joints")
    if joints is not None and 0 <= len(joints) - length <= SURPLUS and joints.shape[1] >= 7:
        return joints[:length, :7]
    taken = _thinned(index, raw, ("observation.state.joint_position",), length)
    notes.append("no joints" if taken is None else "joints taken from observation.state.joint_position")
    return taken


def _thinned(index: int, raw: dict[str, Any], keys: tuple[str, ...], length: int) -> np.ndarray | None:
    """Every third raw row of `keys`, concatenated along columns; None unless that gives `length` rows (or a few more, which are cut)."""
    parts = [_floats(index, raw, key) for key in keys]
    if any(part is None or not 0 <= len(part[::SKIP]) - length <= SURPLUS for part in parts):
        return None
    return np.concatenate([part[::SKIP][:length] for part in parts], axis=1)


def _floats(index: int, raw: dict[str, Any], key: str) -> np.ndarray | None:
    if raw.get(key) is None:
        return None
    try:
        values = np.array(raw[key], dtype=np.float32)
        return values.reshape(len(values), -1)
    except (TypeError, ValueError):
        raise BadEpisode(index, f"{key} is not equally many numbers a frame") from None
