"""A dataset grows, or loses documents: a new manifest, committed in one step.

`append` adds the shards of another dataset; `takedown` writes those that hold a document anew without it and removes
the old ones. Both write new files under new names, then commit manifest.json in one rename, then remove what no
manifest names any more. Killed before the commit, the dataset is the old one; killed after it, the new one; the next
edit of the folder, or the same command again, removes what was left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dots_data.tokens import manifest as manifests
from dots_data.tokens import versions
from dots_data.tokens.manifest import MOST_SOURCES, Manifest, Recipe, Shard, content_id
from dots_data.tokens.reading import origins, stretches
from dots_data.tokens.shards import (
    PROVENANCE,
    Documents,
    Header,
    ShardError,
    checksum,
    record_batch,
    sources_of,
    sync,
    write_shard,
)
from dots_data.tokens.shuffle import shard_name
from dots_data.tokens.versions import Takedown
from dots_data.tokens.workspace import LOCK

_SHARD = re.compile(r"shard-(\d{5,})\.arrow")
_OURS = re.compile(
    r"\.?shard-\d{5,}\.(arrow|provenance\.parquet)(\.\d+\.tmp)?|\.(manifest|takedowns)\S*\.json\.\d+\.tmp"
)
_KEPT = re.compile(r"manifest-[0-9a-f]{32}\.json")
_SHOWN = 3

Ids = npt.NDArray[np.void]


class Removed(NamedTuple):
    """What a takedown did: documents as (id, URL), files that are gone, ids of datasets that are gone, and the dataset
    that is left. Without documents, it finished what a killed one had committed."""

    documents: tuple[tuple[str, str], ...]
    files: tuple[str, ...]
    datasets: tuple[str, ...]
    dataset: Manifest


def append(folder: str | Path, more: str | Path) -> Manifest:
    """Add the shards of the dataset `more` to the one in `folder`, behind its own; returns the new dataset.

    Files are hard links where the file system allows, else copies. The manifest that was there stays, as
    `manifest-<id>.json`.

    Raises:
        ManifestError: one of them is no dataset. ShardError: they have other tokenizers or dtypes, or documents in
            common; a document of `more` was taken down here; a shard of `more` is damaged; the folder is in use.
    """
    with _held(Path(folder)) as (root, dataset, _):
        other, source = manifests.read(more), manifests.manifest_path(more).parent
        _check_alike(dataset, other, root, source)
        _check_files(source, other)
        _check_new(root, dataset, source, other)
        following = _next_number(root)
        added = [_taken(source, shard, root, following + i) for i, shard in enumerate(other.shards)]
        jobs = content_id([dataset.recipe.tokenize, other.recipe.tokenize])
        same = dataset.recipe.data == other.recipe.data
        recipe = dataclasses.replace(dataset.recipe, data=dataset.recipe.data if same else None, tokenize=jobs)
        grown = _with_shards(dataset, (*dataset.shards, *added), recipe)
        kept = root / versions.kept_name(dataset.id)
        manifests.write_atomically(kept, (root / manifests.NAME).read_bytes())
        manifests.write(root, grown)
        return grown


def takedown(folder: str | Path, doc_ids: Sequence[str] = (), urls: Sequence[str] = ()) -> Removed:
    """Remove documents, by id or all of a URL, from the dataset in `folder` and from every earlier one kept there.

    Raises:
        ManifestError: no dataset in `folder`. ShardError: no document is called so; a shard cannot be read; the folder
            is in use.
    """
    with _held(Path(folder)) as (root, dataset, finished):
        everywhere = _everywhere(root)
        shards = {shard.file: shard for one in everywhere for shard in one.shards}
        hit = {file: rows for file, shard in shards.items() if (rows := _rows_of(root, shard, doc_ids, urls))}
        if not hit and finished:
            return Removed((), tuple(finished), (), dataset)
        if not hit:
            raise ShardError(f"{root}: no dataset here holds {', '.join((*doc_ids, *urls))}")
        documents = sorted({row for rows in hit.values() for row in rows.values()})
        following = _next_number(root)
        anew: dict[str, Shard | None] = {}
        for shard in dataset.shards:
            if shard.file in hit:
                anew[shard.file] = _without(root, shard, set(hit[shard.file]), following, dataset)
                following += 1
        left = [anew.get(shard.file, shard) for shard in dataset.shards]
        rest = _with_shards(dataset, [shard for shard in left if shard is not None], dataset.recipe)
        gone = sorted(one.id for one in everywhere if any(shard.file in hit for shard in one.shards))
        entry = Takedown(tuple(doc_id for doc_id, _ in documents), tuple(gone), rest.id)
        versions.write_takedowns(root, [*versions.takedowns(root), entry])
        if rest.id != dataset.id:
            manifests.write(root, rest)
        removed = _settle(root, rest)
        return Removed(tuple(documents), tuple(removed), tuple(gone), rest)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[tuple[Path, Manifest, list[str]]]:
    """The folder of a dataset for this process alone, its current manifest, and what killed edits had left, removed."""
    if folder.is_file():
        raise ShardError(f"{folder}: an earlier dataset does not change; give its folder")
    dataset = manifests.read(folder)
    with open(folder / LOCK, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ShardError(f"{folder}: another process is writing to it; wait for it") from None
        dataset = manifests.read(folder)
        yield folder, dataset, _settle(folder, dataset)


def _settle(root: Path, dataset: Manifest) -> list[str]:
    """Bring a folder into the state that its manifest says: finish what takedowns began, and remove what nothing names.

    Returns the names of files that are gone.
    """
    listed = versions.takedowns(root)
    # Of an entry whose dataset was never committed nothing has happened.
    valid = [one for one in listed if dataset.id not in one.datasets]
    if len(valid) != len(listed):
        versions.write_takedowns(root, valid)
    gone = {versions.kept_name(one) for entry in valid for one in entry.datasets}
    removed = [name for name in sorted(gone) if _remove(root / name)]
    named = {file for one in _everywhere(root) for shard in one.shards for file in (shard.file, shard.provenance.file)}
    for path in sorted(root.iterdir()):
        if path.is_file() and _OURS.fullmatch(path.name) and path.name not in named and _remove(path):
            removed.append(path.name)
    return removed


def _remove(path: Path) -> bool:
    there = path.exists()
    path.unlink(missing_ok=True)
    return there


def _everywhere(root: Path) -> list[Manifest]:
    """The current dataset of a folder, and the earlier ones that are kept."""
    kept = sorted(path for path in root.iterdir() if _KEPT.fullmatch(path.name))
    return [manifests.read(path) for path in (root / manifests.NAME, *kept)]


def _with_shards(dataset: Manifest, shards: Iterable[Shard], recipe: Recipe) -> Manifest:
    entries = tuple(shards)
    sources = sources_of(entries)
    if len(sources) > MOST_SOURCES:
        raise ShardError(f"{len(sources)} sources together, {MOST_SOURCES} at most can be in one dataset")
    return dataclasses.replace(
        dataset,
        recipe=recipe,
        documents=sum(entry.rows for entry in entries),
        tokens=sum(entry.tokens for entry in entries),
        sources=sources,
        shards=entries,
    )


def _next_number(root: Path) -> int:
    """The first number that no shard has had: those that a manifest names, earlier ones too."""
    names = (shard.file for one in _everywhere(root) for shard in one.shards)
    return 1 + max((int(match[1]) for name in names if (match := _SHARD.fullmatch(name))), default=-1)


def _check_alike(dataset: Manifest, other: Manifest, root: Path, source: Path) -> None:
    """Raises ShardError where tokens of the two do not mean the same."""
    mine, theirs = dataset.tokenizer, other.tokenizer
    for name in ("sha256", "vocab_size", "eos_id", "bos_id"):
        if getattr(mine, name) != getattr(theirs, name):
            raise ShardError(
                f"{source}: made with another tokenizer ({name} is {getattr(theirs, name)}, in {root} it is "
                f"{getattr(mine, name)}); tokenize its documents with {root / mine.file}"
            )
    if dataset.dtype != other.dtype:
        raise ShardError(f"{source}: its tokens are {other.dtype}, those of {root} {dataset.dtype}")


def _check_new(root: Path, dataset: Manifest, source: Path, other: Manifest) -> None:
    """Raises ShardError for documents of `other` that are here, or were and have been taken down."""
    theirs = _ids(source, other.shards)
    down = sorted({doc_id for one in versions.takedowns(root) for doc_id in one.documents})
    for what, mine in (
        ("are in it already", _ids(root, dataset.shards)),
        ("were taken down from it", np.array([bytes.fromhex(one) for one in down], "V16")),
    ):
        common = np.intersect1d(theirs.view("S16"), mine.view("S16")).view("V16")
        if len(common):
            named = ", ".join(one.tobytes().hex() for one in common[:_SHOWN])
            more = ", ..." if len(common) > _SHOWN else ""
            raise ShardError(
                f"{root}: {len(common):,} documents of {source} {what}: {named}{more}; leave them out of it"
            )


def _ids(root: Path, shards: Iterable[Shard]) -> Ids:
    """The ids of all documents; 16 bytes a document are in memory."""
    parts = [
        np.frombuffer(b"".join(one.doc_ids.to_pylist()), "V16") for shard in shards for one in stretches(root, shard)
    ]
    return np.concatenate(parts) if parts else np.empty(0, "V16")


def _check_files(root: Path, dataset: Manifest) -> None:
    """Raises ShardError for a file of a dataset that is not what its manifest says."""
    for shard in dataset.shards:
        for one in (shard, shard.provenance):
            path = root / one.file
            try:
                whole = path.stat().st_size == one.bytes and checksum(path) == one.xxh3
            except OSError as error:
                raise ShardError(f"{path}: cannot be read ({error.strerror})") from error
            if not whole:
                raise ShardError(f"{path}: is not what its manifest says; run dots shards verify {root}")


def _taken(source: Path, shard: Shard, root: Path, number: int) -> Shard:
    """Give a shard of another folder and its provenance a place in this one."""
    name = shard_name(number)
    beside = dataclasses.replace(shard.provenance, file=f"{name}.provenance.parquet")
    taken = dataclasses.replace(shard, file=f"{name}.arrow", provenance=beside)
    for file, target in ((shard.provenance.file, beside.file), (shard.file, taken.file)):
        temporary = root / f".{target}.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            os.link(source / file, temporary)
        except OSError:
            shutil.copyfile(source / file, temporary)
        sync(temporary)
        manifests.commit(temporary, root / target)
    return taken


def _rows_of(root: Path, shard: Shard, doc_ids: Sequence[str], urls: Sequence[str]) -> dict[int, tuple[str, str]]:
    """The rows of a shard that are meant, with the id and URL of each."""
    found, first = {}, 0
    ids, pages = pa.array(doc_ids, pa.string()), pa.array(urls, pa.string())
    for batch in origins(root, shard, ["doc_id", "url"]):
        wanted = pc.or_kleene(pc.is_in(batch["doc_id"], ids), pc.is_in(batch["url"], pages)).to_numpy(
            zero_copy_only=False
        )
        for row in np.flatnonzero(wanted).tolist():
            found[first + row] = (batch["doc_id"][row].as_py(), batch["url"][row].as_py() or "")
        first += len(batch)
    return found


def _without(root: Path, shard: Shard, rows: set[int], number: int, dataset: Manifest) -> Shard | None:
    """Write a shard anew without some rows; None if none is left."""
    if len(rows) == shard.rows:
        return None
    header = _header(root / shard.file, shard, dataset)
    kept = np.array([row not in rows for row in range(shard.rows)])
    origin = pq.read_table(root / shard.provenance.file).cast(PROVENANCE).filter(pa.array(kept))

    def batches() -> Iterator[pa.RecordBatch]:
        first = 0
        for one in stretches(root, shard):
            here = kept[first : first + len(one.doc_ids)]
            first += len(here)
            if not here.any():
                continue
            lengths = one.lengths
            values = one.values[np.repeat(here, lengths)]
            borders = np.concatenate([[0], np.cumsum(lengths[here])])
            ids = pa.array([doc_id for doc_id, stays in zip(one.doc_ids.to_pylist(), here, strict=True) if stays])
            yield record_batch(Documents(values, borders, ids.cast(pa.binary(16)), one.buckets[here]), header)

    return write_shard(root, shard_name(number), batches(), origin, header)


def _header(path: Path, shard: Shard, dataset: Manifest) -> Header:
    """What a shard says of itself: that of another job says other things than its dataset."""
    with pa.memory_map(str(path)) as file:
        said = pa.ipc.open_file(file).schema.metadata or {}
    recipe = said.get(b"recipe", b"").decode() or None
    return Header(dataset.tokenizer, shard.source, recipe, shard.job, int(said.get(b"seed", b"0")))
