"""Checkpoints that are whole or do not exist.

`checkpoints/step-N/` holds `model.pt` (weights, router biases), `optimizer.pt`, `random.pt`, `state.json`
(configuration, position in the curriculum, loader state) and `manifest.json`, written last, with the size and
BLAKE2b sum of each of the others. All of it is written and synced in a hidden folder beside, which one rename
makes the checkpoint: a process killed at any moment leaves the earlier checkpoints and at most a hidden
folder, which the next save removes.

Nothing here is unpickled: tensors are read with torch.load(weights_only=True).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_MANIFEST = "manifest.json"
_STATE = "state.json"
_FORMAT = 1
_CHUNK = 1 << 22


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read or written; the message names the file."""


@dataclass(frozen=True)
class Checkpoint:
    """What was read; `tensors` by file name without its suffix: model, optimizer, random."""

    path: Path
    step: int
    state: dict[str, Any]
    tensors: dict[str, Any]


def save(folder: Path, step: int, tensors: Mapping[str, Any], state: Mapping[str, Any], keep: int) -> Path:
    """Write `folder/step-N` atomically, then remove all but the newest `keep`.

    Raises:
        CheckpointError: it could not be written (a full disk, a read-only folder); the earlier ones are
            untouched.
    """
    final, partial = folder / f"step-{step}", folder / f".step-{step}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(".step-*"):
            shutil.rmtree(left_over)
        partial.mkdir()
        for name, value in tensors.items():
            torch.save(value, partial / f"{name}.pt")
        (partial / _STATE).write_text(json.dumps({**state, "step": step}, indent=1), encoding="utf-8")
        files = {file.name: _describe(file) for file in sorted(partial.iterdir())}
        manifest = {"format": _FORMAT, "step": step, "files": files}
        (partial / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for file in (*partial.iterdir(), partial):
            _sync(file)
        if final.exists():  # damaged, or training has come back to this step after a damaged one
            final.rename(folder / f".step-{step}.replaced")
        partial.rename(final)
        _sync(folder)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        shutil.rmtree(partial, ignore_errors=True)
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise CheckpointError(f"{final}: could not be written ({reason}); earlier checkpoints are untouched") from error
    for old in (*saved(folder)[keep:], *folder.glob(".step-*")):
        shutil.rmtree(old, ignore_errors=True)
    return final


def saved(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, newest first; whole ones and damaged ones alike."""
    steps = {path: _step(path) for path in folder.glob("step-*")}
    return sorted((path for path, step in steps.items() if step is not None), key=lambda p: steps[p] or 0, reverse=True)


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
    """Read one checkpoint after checking size and sum of each of its files.

    Raises:
        CheckpointError: a file is missing, damaged or not what this version writes.
    """
    files = verify(path)
    state = _read_json(path / _STATE)
    try:
        tensors = {
            Path(name).stem: torch.load(path / Path(name).name, map_location="cpu", weights_only=True)
            for name in files
            if name.endswith(".pt")
        }
    except Exception as error:  # whatever torch raises on bytes that are not its own
        raise CheckpointError(f"{path}: not readable ({str(error).splitlines()[0]})") from error
    return Checkpoint(path, int(state.pop("step")), state, tensors)


def verify(path: Path) -> list[str]:
    """The files of a checkpoint, each compared with the manifest; nothing is held in memory.

    Raises:
        CheckpointError: a file is missing, damaged or not what this version writes.
    """
    manifest = _read_json(path / _MANIFEST)
    if manifest.get("format") != _FORMAT or not isinstance(manifest.get("files"), dict):
        raise CheckpointError(f"{path / _MANIFEST}: not a checkpoint manifest of format {_FORMAT}")
    for name, expected in manifest["files"].items():
        file = path / Path(name).name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing, though the manifest names it")
        found = _describe(file)
        if found != expected:
            what = "size" if found["bytes"] != expected.get("bytes") else "checksum"
            raise CheckpointError(f"{file}: damaged ({what} differs from the manifest's)")
    return list(manifest["files"])


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
