"""The output folder of a tokenize job: taken by one run at a time, resumed by the same job, refused to
another.

Intermediate files lie in OUTPUT/.work/<job>/ and vanish with the finished job. What a run finds there is used
only if it is named by its content (pieces) or by an entry written after the files it names (shards).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dots_data.tokens import manifest
from dots_data.tokens.manifest import ManifestError

SUMMARY, WORK, LOCK = "summary.json", ".work", ".lock"
OURS = re.compile(
    r"\.?shard-\d{5,}\.(arrow|provenance\.parquet)(\.\d+\.tmp)?"
    r"|\.(manifest|summary|tokenizer)\.json\.\d+\.tmp"
    r"|\.?batches-[0-9a-f]{32}\.i64(\.\d+\.tmp)?"
)


class OutputError(RuntimeError):
    """The output folder cannot be used; the message says why and what to do."""


def make_folder(output: Path) -> None:
    """Make the folder and see that it can be written. Raises OutputError."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        open(output / LOCK, "a").close()
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror}); choose another OUTPUT") from error


@contextlib.contextmanager
def alone(output: Path) -> Iterator[None]:
    """Take `output` for this process. Raises OutputError for a folder that cannot be written or is in use."""
    make_folder(output)
    with open(output / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise OutputError(f"{output}: another run is writing to it; wait for it or choose another OUTPUT") from None
        yield


@contextlib.contextmanager
def claim(output: Path, job_hash: str, described: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """Take `output` for this job alone: its work folder, and the summary if the job is already finished.

    What an interrupted run of this job committed is kept; every other leftover of ours is removed.

    Raises OutputError for a folder that cannot be written, is in use, or holds the result of another job.
    """
    with alone(output):
        finished = committed(output, job_hash, described)
        work = output / WORK / job_hash
        if finished is None:
            tidy(output, work)
        yield work, finished
        shutil.rmtree(output / WORK, ignore_errors=True)


def committed(output: Path, job_hash: str, described: dict[str, Any]) -> dict[str, Any] | None:
    """The summary if the folder's manifest is of this job, None if it has none. Raises OutputError."""
    if not (output / manifest.NAME).exists():
        return None
    summary = read_json(output / SUMMARY)
    try:
        dataset = manifest.read(output)
    except ManifestError as error:
        raise OutputError(f"{error}; choose another OUTPUT or remove it") from error
    if dataset.recipe.tokenize == job_hash and summary is None:
        raise OutputError(f"{output}: holds the finished dataset of this job but no {SUMMARY}; remove it")
    if dataset.recipe.tokenize != job_hash or summary is None:
        before = (summary or {}).get("job") or {}
        differs = [name for name in described if before.get(name) != described[name]] or ["job"]
        raise OutputError(
            f"{output}: holds a finished dataset ({dataset.id}) of another {' and '.join(differs)}; "
            "choose another OUTPUT or remove it"
        )
    return {**summary, "finished_before": True}


def tidy(output: Path, work: Path) -> None:
    """Remove what killed runs left: other jobs' work, temporary files, shards that no entry commits."""
    for folder in (output / WORK).glob("*"):
        if folder != work:
            shutil.rmtree(folder, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    for temporary in work.glob("*/.*.tmp"):
        temporary.unlink(missing_ok=True)
    entries = [read_json(path) for path in sorted((work / "shards").glob("shard-*.json"))]
    named = {name for one in entries if one and one.get("entry") for name in _files_of(output, one["entry"])}
    for path in output.iterdir():
        if path.is_file() and OURS.fullmatch(path.name) and path.name not in named:
            path.unlink(missing_ok=True)
    for path in (work / "shards").glob("shard-*.json"):
        one = read_json(path)
        if one is None or (one.get("entry") and not _files_of(output, one["entry"])):
            path.unlink(missing_ok=True)


def _files_of(output: Path, entry: dict[str, Any]) -> list[str]:
    """The two files of an entry where both are there with their sizes, else none."""
    files = {entry["file"]: entry["bytes"], entry["provenance"]["file"]: entry["provenance"]["bytes"]}
    whole = all((output / name).is_file() and (output / name).stat().st_size == size for name, size in files.items())
    return list(files) if whole else []


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        loaded = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


def write_json(path: Path, content: dict[str, Any]) -> None:
    manifest.write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False).encode("utf-8") + b"\n")
