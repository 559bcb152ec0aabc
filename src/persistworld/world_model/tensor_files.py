"""Files of named tensors, read by memory map and written tensor by tensor: a checkpoint of 9 GB passes through a few
hundred MB of memory.
"""

import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from persistworld.errors import UserError
from persistworld.files import atomic_path

Tensors = Mapping[str, Tensor]

# safetensors' names of the types that checkpoints hold
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


def map_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors, .pt or .bin file, by name; bytes are read when a tensor is used.

    Raises UserError when the file is missing or damaged, holds other things than named tensors, or is a pickle that
    would run code.
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
            f"{path}: truncated, or not written by torch.save since version 1.6; fetch it again, or save it anew"
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


def write_safetensors(tensors: Tensors, path: Path) -> None:
    """Write `tensors` in their own types, one at a time: safetensors' own writer holds a copy of them all."""
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
    text += b" " * (-len(text) % 8)  # the format wants tensors aligned to 8 bytes
    with atomic_path(path) as part, part.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def write_pickle(tensors: Tensors, path: Path) -> None:
    """Write `tensors` as one flat state dict with torch.save, as the reference does."""
    with atomic_path(path) as part:
        torch.save({name: tensor.detach() for name, tensor in tensors.items()}, part)
