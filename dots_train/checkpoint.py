"""Checkpoints that are whole or do not exist, written beside the training and read back into any layout.

`checkpoints/step-N/` holds what torch.distributed.checkpoint writes (`__R_0.distcp`, one file a rank, and `.metadata`,
which says where each part of each tensor lies), `state.json` (configuration, place in curriculum and data, and more)
and `manifest.json`, written last, with the size and BLAKE2b sum of each of the others. All of it is written and synced
in a hidden folder beside, which one rename makes the checkpoint: processes killed at any moment leave the earlier
checkpoints and at most a hidden folder, which the next save removes.

Tensors are named as in the whole model, so a checkpoint knows no layout. Nothing in one is trusted: sums are compared
before anything is read, tensors are read with torch.load(weights_only=True), and of the metadata, a pickle by torch's
choice, nothing is built but the classes that torch writes into it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors
from torch.distributed.tensor import DTensor

_MANIFEST = "manifest.json"
_STATE = "state.json"
_FORMAT = 2
_CHUNK = 1 << 22

# What torch 2.11 and later put into `.metadata`, and nothing that could do anything else.
_PICKLED = {
    "torch.distributed.checkpoint.metadata": {
        "Metadata", "MetadataIndex", "TensorStorageMetadata", "ChunkStorageMetadata", "TensorProperties", "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch": {"Size", "float32", "float64", "bfloat16", "int64", "uint8", "strided"},
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath"},
}  # fmt: skip


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or written; the message names the file."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are those of its manifest; `read` brings its tensors."""

    path: Path
    step: int
    state: dict[str, Any]

    def read(self, into: Mapping[str, Tensor], alone: bool = False) -> None:
        """Fill tensors, sharded in whatever way, from those of the same names.

        alone: other processes do not read the same names now.

        Raises:
            CheckpointError: one is missing or of another shape, or the files cannot be understood.
        """
        try:
            stored = self._reader.read_metadata().state_dict_metadata
            for name, tensor in into.items():
                found = stored.get(name)
                if not isinstance(found, TensorStorageMetadata):
                    raise CheckpointError(f"{self.path}: holds no {name!r}")
                if found.size != tensor.shape:
                    raise CheckpointError(
                        f"{self.path}: {name} is {tuple(found.size)} there, {tuple(tensor.shape)} here"
                    )
            load_tensors(dict(into), storage_reader=self._reader, no_dist=alone or not dist.is_initialized())
        except CheckpointError:
            raise
        except (Exception, CheckpointException) as error:  # whatever torch raises on bytes that are not its own
            raise CheckpointError(f"{self.path}: not readable ({_reason(error)})") from error

    @cached_property
    def _reader(self) -> _Reader:
        return _Reader(self.path)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _PICKLED.get(module, ()):
            raise CheckpointError(f"its metadata names {module}.{name}, which no checkpoint of ours holds")
        return super().find_class(module, name)


class _Reader(FileSystemReader):
    """torch's reader, which takes no object from `.metadata` that could be code, and nothing but tensors."""

    _known: Metadata | None = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        if self._known is not None:  # of a large model it takes seconds to read
            return self._known
        with open(Path(self.path) / ".metadata", "rb") as file:
            metadata = _Unpickler(file).load()
        if not isinstance(metadata, Metadata) or not all(
            isinstance(one, TensorStorageMetadata) for one in metadata.state_dict_metadata.values()
        ):
            raise CheckpointError(f"{self.path}: .metadata is not that of tensors")
        for info in metadata.storage_data.values():
            if Path(info.relative_path).name != info.relative_path:
                raise CheckpointError(f"{self.path}: .metadata names {info.relative_path!r}, outside the checkpoint")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        self._known = metadata
        return metadata


class Saver:
    """Writes the checkpoints of a run into `folder`, at most one at a time, while training goes on.

    Args:
        keep: how many of the newest stay, besides milestones.
    """

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep
        # The thread's collectives must not meet those of the training: they have a group of their own.
        self.group = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self._threads = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[Path] | None = None

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], milestone: bool = False) -> None:
        """Take a copy of the tensors and begin to write `folder/step-N`; first the one before is waited for.

        milestone: this one is never removed.

        Raises:
            CheckpointError: the one before could not be written (a full disk, a read-only folder); the earlier ones
                are untouched.
        """
        self.wait()
        copies = {name: _copy(tensor) for name, tensor in tensors.items()}
        self._pending = self._threads.submit(self._write, step, copies, dict(state), milestone)

    def wait(self) -> Path | None:
        """Until what was begun is written: its path. Raises CheckpointError as `save` does."""
        pending, self._pending = self._pending, None
        return pending.result() if pending is not None else None

    def close(self) -> None:
        """End the thread, whatever became of what it wrote."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _write(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any], milestone: bool) -> Path:
        final, partial = self.folder / f"step-{step}", self.folder / f".step-{step}.partial"
        rank = dist.get_rank(self.group) if self.group is not None else 0
        problem: BaseException | None = None
        try:
            if rank == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                for left_over in self.folder.glob(".step-*"):
                    shutil.rmtree(left_over)
                partial.mkdir()
        except OSError as error:
            problem = error
        self._agree(problem, final)
        try:
            writer = FileSystemWriter(partial, thread_count=1)
            save_tensors(tensors, storage_writer=writer, process_group=self.group, no_dist=self.group is None)
            own = {file.name: _describe(file) for file in sorted(partial.glob(f"__{rank}_*"))}
            (partial / f".sums-{rank}.json").write_text(json.dumps(own), encoding="utf-8")
        except (Exception, CheckpointException) as error:  # torch reports a full disk in more than one way
            problem = error
        self._agree(problem, final)
        try:
            if rank == 0:
                self._commit(step, partial, final, {**state, "milestone": milestone})
        except OSError as error:
            problem = error
        self._agree(problem, final)
        return final

    def _agree(self, problem: BaseException | None, final: Path) -> None:
        """Raise CheckpointError on every rank if there was a problem on any."""
        failed = torch.tensor(float(problem is not None))
        if self.group is not None:
            dist.all_reduce(failed, group=self.group)
        if not failed:
            return
        shutil.rmtree(final.with_name(f".{final.name}.partial"), ignore_errors=True)
        reason = _reason(problem) if problem is not None else "another rank failed"
        said = f"{final}: could not be written ({reason}); earlier checkpoints are untouched"
        raise CheckpointError(said) from problem

    def _commit(self, step: int, partial: Path, final: Path, state: dict[str, Any]) -> None:
        files: dict[str, Any] = {}
        for sums in sorted(partial.glob(".sums-*.json")):
            files |= json.loads(sums.read_text(encoding="utf-8"))
            sums.unlink()
        (partial / _STATE).write_text(json.dumps({**state, "step": step}, indent=1), encoding="utf-8")
        files |= {name: _describe(partial / name) for name in (".metadata", _STATE)}
        manifest = {"format": _FORMAT, "step": step, "files": files}
        (partial / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for file in (*partial.iterdir(), partial):
            _sync(file)
        if final.exists():  # damaged, or training has come back to this step after a damaged one
            final.rename(self.folder / f".step-{step}.replaced")
        partial.rename(final)
        _sync(self.folder)
        rolling = [path for path in saved(self.folder) if not is_milestone(path)]
        for old in (*rolling[self.keep :], *self.folder.glob(".step-*")):
            shutil.rmtree(old, ignore_errors=True)


def saved(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, newest first; whole ones and damaged ones alike."""
    steps = {path: _step(path) for path in folder.glob("step-*")}
    return sorted((path for path, step in steps.items() if step is not None), key=lambda p: steps[p] or 0, reverse=True)


def is_milestone(path: Path) -> bool:
    """Whether a checkpoint is kept for ever; one whose state cannot be read is not."""
    try:
        return bool(_read_json(path / _STATE).get("milestone"))
    except CheckpointError:
        return False


def latest(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that is whole; each damaged one before it is named through `warn`.

    Returns None when there is none at all.

    Raises:
        CheckpointError: there are checkpoints, and every one is damaged.
    """
    paths = saved(folder)
    for path in paths:
        try:
            return load(path)
        except CheckpointError as error:
            warn(f"{error}; going back to the checkpoint before it")
    if paths:
        raise CheckpointError(f"{folder}: no checkpoint is readable; remove the folder to train from the start")
    return None


def load(path: Path) -> Checkpoint:
    """Open one checkpoint after checking size and sum of each of its files.

    With several processes every rank checks its share of the files, and all come to one answer.

    Raises:
        CheckpointError: a file is missing, damaged or not what this version writes.
    """
    problem, state = None, {}
    try:
        manifest = _read_json(path / _MANIFEST)
        if manifest.get("format") != _FORMAT or not isinstance(manifest.get("files"), dict):
            raise CheckpointError(f"{path / _MANIFEST}: not a checkpoint manifest of format {_FORMAT}")
        _check(path, sorted(manifest["files"].items())[_rank() :: _world()])
        state = _read_json(path / _STATE)
    except CheckpointError as error:
        problem = error
    if dist.is_initialized():
        told: list[str | None] = [None] * _world()
        dist.all_gather_object(told, str(problem) if problem is not None else None)
        first = next((one for one in told if one is not None), None)
        if first is not None:
            raise CheckpointError(first) from problem
    elif problem is not None:
        raise problem
    return Checkpoint(path, int(state.pop("step")), state)


def _check(path: Path, files: Iterable[tuple[str, Any]]) -> None:
    for name, expected in files:
        file = path / Path(name).name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing, though the manifest names it")
        found = _describe(file)
        if found != expected:
            what = "size" if found["bytes"] != expected.get("bytes") else "checksum"
            raise CheckpointError(f"{file}: damaged ({what} differs from the manifest's)")


def _copy(tensor: Tensor) -> Tensor:
    """A copy on the CPU that training does not change, sharded as the tensor is."""
    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return tensor.to("cpu", copy=True)
    held = tensor.to_local().to("cpu", copy=True)
    return DTensor.from_local(
        held, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def _reason(error: BaseException) -> str:
    """Why, in a few words: torch puts what a rank raised, with its traceback, into an exception of its own."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return str(getattr(error, "strerror", None) or lines[0])


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _step(path: Path) -> int | None:
    match = re.fullmatch(r"step-(\d+)", path.name)
    return int(match[1]) if match and path.is_dir() else None


def _describe(file: Path) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=32)
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return {"bytes": file.stat().st_size, "blake2b": digest.hexdigest()}


def _read_json(file: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"{file}: damaged (not JSON)") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{file}: damaged (not a JSON object)")
    return loaded


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
