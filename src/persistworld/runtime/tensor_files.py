"""Files of named tensors. They are read by memory map or as a stream, and written tensor by tensor.

Converting a checkpoint of 9 GB takes a few hundred MB of memory. Loading a model takes little more memory than the model itself.
"""

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path

Tensors = Mapping[str, Tensor]

# The names in safetensors of the types that checkpoints contain.
TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
TORCH_TYPES = {name: dtype for dtype, name in TYPES.items()}
HEADER_LIMIT = 100_000_000  # bytes, the limit of safetensors; a corrupt length field must not fill the memory


def map_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pt or .bin file, by name. Bytes are read when a tensor is used.

    Raises UserError if the file is missing or damaged, contains anything but named tensors, or is a pickle that would run code.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except SafetensorError as error:
            raise UserError(f"{path}: damaged ({error}); fetch it again") from None
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"{path}: truncated, or saved by torch before version 1.6; fetch it again, or save it with a newer torch"
        )
    try:
        tensors = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds more than tensors and would run code when read: refused; get a file of tensors only"
        ) from None
    except (RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())[:120]}); fetch it again") from None
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise UserError(f"{path}: expected one flat dictionary of tensors (a state dict), found other things in it")
    return tensors


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A copy of a safetensors file's tensors in memory, floating-point ones as float32. The file does not stay mapped.

    Raises UserError if it is missing or damaged.
    """
    with _open(path) as file:
        entries, start = _header(file, path)
        return {name: _read(file, start, entry) for name, entry in entries.items()}


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a safetensors file into `module`, which may be on the meta device: it takes over the tensors as they are read.

    Raises UserError if tensors are missing, unexpected or of another shape, before any tensor is read.
    """
    with _open(path) as file:
        entries, _ = _header(file, path)
    own = {name: tensor.shape for name, tensor in module.state_dict().items()}
    require_shapes(path, {name: torch.Size(entry["shape"]) for name, entry in entries.items()}, own)
    module.load_state_dict(read_tensors(path), assign=True)


def require_shapes(path: Path, found: Mapping[str, torch.Size], own: Mapping[str, torch.Size]) -> None:
    """Raise UserError unless a file's tensors have the names and shapes of a model's own."""
    for problem, names in (
        ("missing", own.keys() - found.keys()),
        ("not known to this model", found.keys() - own.keys()),
        ("of another shape", {n for n in own.keys() & found.keys() if own[n] != found[n]}),
    ):
        if names:
            some = ", ".join(sorted(names)[:3])
            raise UserError(f"{path}: {len(names)} keys {problem}, e.g. {some}; is this the checkpoint of another model?")


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that writes it first") from None


def _header(file: BinaryIO, path: Path) -> tuple[dict[str, Any], int]:
    """Each tensor's dtype, shape and data_offsets, and the offset of the data. The format is 8 bytes of length, JSON, data."""
    try:
        length = int.from_bytes(file.read(8), "little")
        entries = json.loads(file.read(min(length, HEADER_LIMIT)))
        entries.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: not a whole safetensors file (its header is no list of tensors); fetch or make it again") from None
    if unknown := {entry["dtype"] for entry in entries.values()} - TORCH_TYPES.keys():
        raise UserError(f"{path}: tensors of type {', '.join(sorted(unknown))}; only {', '.join(TORCH_TYPES)} are read")
    if (size := path.stat().st_size) < 8 + length + end:
        raise UserError(f"{path}: not a whole safetensors file ({size:,} bytes of {8 + length + end:,}); fetch or make it again")
    return entries, 8 + length


def _read(file: BinaryIO, start: int, entry: dict[str, Any]) -> Tensor:
    tensor = torch.empty(entry["shape"], dtype=TORCH_TYPES[entry["dtype"]])
    file.seek(start + entry["data_offsets"][0])
    file.readinto(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return tensor.float() if tensor.is_floating_point() else tensor


def write_tensors(tensors: Tensors, path: Path, half: bool = False) -> None:
    """Write a safetensors file. With `half`, floating-point tensors are written as float16, which halves a shipped checkpoint."""
    with atomic_path(path) as part:
        save_file({name: _stored(tensor, half) for name, tensor in tensors.items()}, part)


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().contiguous()
    return tensor.half() if half and tensor.is_floating_point() else tensor


def write_safetensors(tensors: Tensors, path: Path) -> None:
    """Write `tensors` in their own types, one at a time. (The writer of safetensors would hold a copy of all of them.)"""
    header, offset = {}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format requires tensors aligned to 8 bytes
    with atomic_path(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def write_pickle(tensors: Tensors, path: Path) -> None:
    """Write `tensors` as one flat state dict with torch.save, as the reference code does."""
    with atomic_path(path) as part, part.open("wb") as file:  # opened by Python, not torch: see training_state.save_state
        torch.save({name: tensor.detach() for name, tensor in tensors.items()}, file)
