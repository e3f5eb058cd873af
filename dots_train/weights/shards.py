"""Tensors in safetensors files with an index: written with one file in memory at a time, read one tensor at a time.

The layout is Hugging Face's: STEM-00001-of-0000M.safetensors and STEM.safetensors.index.json, which names the
file of each key. Reading also takes a single STEM.safetensors without an index. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

SHARD_BYTES = 5_000_000_000
ALL = slice(None)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


class WeightsError(ValueError):
    """Weights that cannot be read, written or used; the message names the file or the key."""


class Entry(NamedTuple):
    """A tensor that is not there yet, or is not read yet."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class Shards:
    """The tensors of a folder; opening reads headers alone.

    Raises:
        WeightsError: there is no such file, one is cut or damaged, it holds other keys than the index says, a
            tensor is not of a floating type of 16 or 32 bits, or there are only pickles.
    """

    def __init__(self, folder: Path, stem: str = "model"):
        self.folder = folder
        self._files: dict[str, Any] = {}
        self._where = _locate(folder, stem)
        self.entries: dict[str, Entry] = {}
        for file in sorted(set(self._where.values())):
            self._open(file)

    def read(self, key: str, rows: slice = ALL) -> Tensor:
        """A tensor, or some of its first dimension, on the CPU in the type of the file."""
        tensor: Tensor = self._files[self._where[key]].get_slice(key)[rows]
        return tensor

    def file(self, key: str) -> Path:
        """Where a key lies, for messages."""
        return self.folder / self._where[key]

    def _open(self, file: str) -> None:
        opened, path = _opened(self.folder / file), self.folder / file
        said = {key for key, where in self._where.items() if where == file}
        held = set(opened.keys())
        for key in sorted(said ^ held)[:1]:
            raise WeightsError(f"{path}: {f'{key} is missing' if key in said else f'{key} is not in the index'}")
        for key in sorted(held):
            tensor = opened.get_slice(key)
            name = tensor.get_dtype()
            if name not in _DTYPES:
                raise WeightsError(f"{path}: {key} is of type {name}; weights must be one of {', '.join(_DTYPES)}")
            self.entries[key] = Entry(tuple(tensor.get_shape()), _DTYPES[name])
        self._files[file] = opened


def write(
    folder: Path,
    stem: str,
    entries: Mapping[str, Entry],
    read: Callable[[str], Tensor],
    most: int = SHARD_BYTES,
) -> None:
    """Write all `entries` into files of at most `most` bytes (or one tensor); `read` gives each tensor when its turn
    comes, and only one file's tensors are held at a time.

    Raises:
        WeightsError: `read` gave another shape.
        OSError: the disk is full, or the folder cannot be written.
    """
    groups = list(_grouped(entries, most))
    where: dict[str, str] = {}
    for number, keys in enumerate(groups, start=1):
        name = f"{stem}-{number:05}-of-{len(groups):05}.safetensors"
        _write_one(folder / name, {key: _as(read(key), entries[key], key) for key in keys})
        where |= dict.fromkeys(keys, name)
    index = {"metadata": {"total_size": total_bytes(entries)}, "weight_map": where}
    write_json(folder / f"{stem}.safetensors.index.json", index)


def total_bytes(entries: Mapping[str, Entry]) -> int:
    return sum(entry.bytes for entry in entries.values())


@contextmanager
def new_folder(path: Path, room: int = 0) -> Iterator[Path]:
    """A hidden folder beside `path`, which becomes `path` by one rename when the block ends well.

    room: bytes that will be written at least; a disk that has less is refused before the first of them.

    Raises:
        WeightsError: `path` holds something, is a file, or lies on a disk with too little room.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise WeightsError(f"{path}: holds something already; name a new or an empty folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < room:
        raise WeightsError(f"{path}: needs {room / 1e9:,.1f} GB, the disk has {free / 1e9:,.1f} GB left")
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir()
    try:
        yield partial
        for file in (*partial.iterdir(), partial):
            _sync(file)
        partial.rename(path)
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises WeightsError naming the file."""
    try:
        loaded = json.loads(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not JSON ({error})") from error
    if not isinstance(loaded, dict):
        raise WeightsError(f"{path}: not a JSON object")
    return loaded


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _locate(folder: Path, stem: str) -> dict[str, str]:
    """The file of each key."""
    index, single = folder / f"{stem}.safetensors.index.json", f"{stem}.safetensors"
    if index.is_file():
        where = read_json(index).get("weight_map")
        if not isinstance(where, dict) or not where:
            raise WeightsError(f"{index}: has no weight_map")
        for key, file in where.items():
            if not isinstance(file, str) or not file.endswith(".safetensors") or Path(file).name != file:
                raise WeightsError(
                    f"{index}: {key} is said to lie in {file!r}, which is no .safetensors file beside it"
                )
        return where
    if (folder / single).is_file():
        return dict.fromkeys(_opened(folder / single).keys(), single)
    for pickle in sorted(file for pattern in _PICKLES for file in folder.glob(pattern)):
        raise WeightsError(f"{pickle}: a pickle, which may run code and is never opened; convert it to safetensors")
    raise WeightsError(f"{folder}: holds neither {index.name} nor {single}")


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt", device="cpu")
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: missing, though the index names it") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: cut or damaged ({error})") from error


def _write_one(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except Exception as error:  # the library's own class, for a full disk too
        raise OSError(f"{path}: could not be written ({error})") from error
    path.chmod(path.parent.stat().st_mode & 0o666)  # the library lets the owner alone read it


def _grouped(entries: Mapping[str, Entry], most: int) -> Iterator[Sequence[str]]:
    """Keys in order, as many to a file as fit."""
    keys: list[str] = []
    held = 0
    for key, entry in entries.items():
        if keys and held + entry.bytes > most:
            yield keys
            keys, held = [], 0
        keys.append(key)
        held += entry.bytes
    yield keys


def _as(tensor: Tensor, entry: Entry, key: str) -> Tensor:
    if tuple(tensor.shape) != entry.shape:
        raise WeightsError(f"{key}: is {list(tensor.shape)}, should be {list(entry.shape)}")
    return tensor.detach().to(device="cpu", dtype=entry.dtype).contiguous()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
