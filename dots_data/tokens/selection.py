"""A dataset of some documents of another one, without tokenizing anything again: the long ones, for the 32K stage; a
share of all, to be held out of training, and the rest.

The documents keep their order, so that what was shuffled stays shuffled; their provenance rows go with them, and the
new manifest says of which dataset it is a part and by which rule. One pass, a record batch at a time; the same bytes on
every run.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dots_data.tokens import manifest as manifests
from dots_data.tokens import workspace
from dots_data.tokens.manifest import DTYPES, Derived, Manifest, Recipe, Shard, content_id
from dots_data.tokens.shards import PROVENANCE, Documents, Header, ShardError, record_batch, sources_of, write_shard
from dots_data.tokens.shuffle import batch_ranges, shard_name

SHARD_BYTES, BATCH_TOKENS = 256_000_000, 4_000_000


@dataclass(frozen=True)
class Rule:
    """Which documents are taken.

    min_tokens: those of at least so many tokens, EOS counted.
    one_in: of them, one in so many, by a hash of its id: the same documents on every run, whatever else there is.
    rest: those that `one_in` leaves, so that two selections divide a dataset.
    suffix: is put behind the names of their sources.
    """

    min_tokens: int = 1
    suffix: str = ""
    one_in: int = 1
    rest: bool = False

    def __post_init__(self) -> None:
        if self.min_tokens < 1:
            raise ShardError(f"min_tokens must be at least 1, found {self.min_tokens}")
        if self.one_in < 1 or (self.rest and self.one_in == 1):
            raise ShardError(f"one document in {self.one_in} is no share; give a number above 1")

    def __str__(self) -> str:
        share = f"all but one in {self.one_in} " if self.rest else f"one in {self.one_in} " if self.one_in > 1 else ""
        named = f", sources named with {self.suffix!r} behind" if self.suffix else ""
        length = f" of at least {self.min_tokens} tokens" if self.min_tokens > 1 or not share else ""
        return f"{share}documents{length}{named}"

    def takes(self, origin: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows of a provenance table are taken."""
        taken = np.asarray(origin["tokens"].to_numpy() >= self.min_tokens, np.bool_)
        if self.one_in > 1:
            drawn = [_number(doc_id) % self.one_in == 0 for doc_id in origin["doc_id"].to_pylist()]
            taken &= np.array(drawn, np.bool_) != self.rest
        return taken


def _number(doc_id: str) -> int:
    # Not the id itself, of which other choices are made, that of the tokenizer's sample for one.
    return int.from_bytes(hashlib.blake2b(doc_id.encode(), digest_size=8, person=b"dots one in N").digest(), "big")


@dataclass(frozen=True)
class _Part:
    """What is taken of one shard: `rows` in rising order, and their provenance."""

    shard: Shard
    rows: np.ndarray[Any, np.dtype[np.int64]]
    origin: pa.Table

    @property
    def tokens(self) -> int:
        return int(pc.sum(self.origin["tokens"]).as_py())


def select(
    folder: str | Path,
    output: str | Path,
    rule: Rule,
    *,
    shard_bytes: int = SHARD_BYTES,
    batch_tokens: int = BATCH_TOKENS,
) -> Manifest:
    """Write the documents of the dataset in `folder` that the rule takes to `output`, and return its manifest.

    shard_bytes: bytes of tokens at which a shard is closed. batch_tokens: tokens at which a record batch is.
    A folder that already holds this selection is left as it is.

    Raises:
        ManifestError: no dataset in `folder`, or `output` holds something else that calls itself one.
        ShardError: a shard or its provenance cannot be read or is another one, no document is long enough, or
            `output` holds another dataset.
    """
    dataset = manifests.read(folder)
    root, target = manifests.manifest_path(folder).parent, Path(output)
    _check_names(dataset, rule)
    derived = Derived(dataset.id, str(rule))
    with workspace.alone(target):
        if (target / manifests.NAME).exists():
            return _found(target, derived)
        job = content_id(["select", derived.dataset, derived.rule, shard_bytes, batch_tokens])
        workspace.tidy(target, target / workspace.WORK / job)
        _copy_tokenizer(root, target, dataset)
        entries: list[Shard] = []
        for parts in _shards(root, dataset, rule, shard_bytes):
            source = parts[0].shard.source + rule.suffix
            header = Header(dataset.tokenizer, source, dataset.recipe.data, job, dataset.seed)
            origin = pa.concat_tables([part.origin for part in parts])
            batches = _batches(root, parts, header, batch_tokens)
            entries.append(write_shard(target, shard_name(len(entries)), batches, origin, header))
        if not entries:
            raise ShardError(f"{root}: there are no {rule}; nothing was selected")
        selected = Manifest(
            dataset.tokenizer,
            dataset.dtype,
            Recipe(dataset.recipe.data, dataset.recipe.tokenize, derived),
            dataset.seed,
            sum(entry.rows for entry in entries),
            sum(entry.tokens for entry in entries),
            sources_of(entries),
            tuple(entries),
        )
        manifests.write(target, selected)
        shutil.rmtree(target / workspace.WORK, ignore_errors=True)
    return selected


def _found(target: Path, derived: Derived) -> Manifest:
    there = manifests.read(target)
    if there.recipe.derived != derived:
        raise ShardError(f"{target}: holds another dataset ({there.id}); choose another output or remove it")
    return there


def _check_names(dataset: Manifest, rule: Rule) -> None:
    for source in dataset.sources:
        if not manifests.PLAIN_NAME.fullmatch(source.name + rule.suffix):
            raise ShardError(f"suffix {rule.suffix!r}: {source.name + rule.suffix!r} is no plain name of a source")


def _copy_tokenizer(root: Path, target: Path, dataset: Manifest) -> None:
    info = dataset.tokenizer
    try:
        content = (root / info.file).read_bytes()
    except OSError as error:
        raise ShardError(f"{root / info.file}: named by the manifest, but {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != info.sha256:
        raise ShardError(f"{root / info.file}: is not the tokenizer that the manifest names")
    copy = target / info.file
    copy.parent.mkdir(parents=True, exist_ok=True)
    manifests.write_atomically(copy, content)


def _shards(root: Path, dataset: Manifest, rule: Rule, shard_bytes: int) -> Iterator[list[_Part]]:
    """What goes into each new shard, one source after another."""
    width = DTYPES[dataset.dtype]
    for source in dataset.sources:
        parts: list[_Part] = []
        for shard in dataset.shards:
            if shard.source != source.name:
                continue
            part = _part(root, shard, rule)
            if len(part.rows):
                parts.append(part)
            if sum(one.tokens for one in parts) * width >= shard_bytes:
                yield parts
                parts = []
        if parts:
            yield parts


def _part(root: Path, shard: Shard, rule: Rule) -> _Part:
    path = root / shard.provenance.file
    try:
        with pq.ParquetFile(path) as file:
            # A row group at a time: of a shard of short documents few rows are kept.
            kept = []
            rows = []
            first = 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group).cast(PROVENANCE)
                taken = np.flatnonzero(rule.takes(table))
                kept.append(table.take(pa.array(taken)))
                rows.append(taken + first)
                first += len(table)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise ShardError(f"{path}: cannot be read as the provenance of a shard: {error}") from error
    if first != shard.rows:
        raise ShardError(f"{path}: {first} rows, its shard has {shard.rows}")
    return _Part(
        shard, np.concatenate([np.zeros(0, np.int64), *rows]), pa.concat_tables([PROVENANCE.empty_table(), *kept])
    )


def _batches(root: Path, parts: list[_Part], header: Header, batch_tokens: int) -> Iterator[pa.RecordBatch]:
    """The documents of a new shard, in record batches as a tokenize job would cut them."""
    lengths = np.concatenate([part.origin["tokens"].to_numpy() for part in parts])
    rows = itertools.chain.from_iterable(_taken(root, part) for part in parts)
    held: list[pa.RecordBatch] = []
    count = 0
    for start, stop in batch_ranges(lengths, batch_tokens):
        while count < stop - start:
            held.append(next(rows))
            count += len(held[-1])
        whole = pa.concat_batches(held)
        yield _compact(whole.slice(0, stop - start), header)
        held, count = [whole.slice(stop - start)], count - (stop - start)


def _taken(root: Path, part: _Part) -> Iterator[pa.RecordBatch]:
    """The rows of a part, as they lie in the record batches of its shard."""
    path = root / part.shard.file
    ids = part.origin["doc_id"].to_pylist()
    try:
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            first = done = 0
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                here = part.rows[(part.rows >= first) & (part.rows < first + len(batch))] - first
                first += len(batch)
                if not len(here):
                    continue
                taken = batch.take(pa.array(here))
                if [doc_id.hex() for doc_id in taken.column("doc_id").to_pylist()] != ids[done : done + len(here)]:
                    raise ShardError(f"{path}: batch {number}: the provenance has other documents, or in another order")
                done += len(here)
                yield taken
    except (OSError, pa.ArrowException, KeyError) as error:
        raise ShardError(f"{path}: cannot be read as a shard: {error}") from error
    if done != len(ids):
        raise ShardError(f"{path}: {first} rows, the manifest says {part.shard.rows}")


def _compact(rows: pa.RecordBatch, header: Header) -> pa.RecordBatch:
    """A record batch of the new shard, whose buffers hold these rows alone."""
    tokens = rows.column("tokens")
    borders = tokens.offsets.to_numpy()
    values = tokens.values.to_numpy()[borders[0] : borders[-1]]
    ids = pa.concat_arrays([rows.column("doc_id")])
    return record_batch(Documents(values, borders - borders[0], ids, rows.column("bucket").to_numpy()), header)


def run(options: argparse.Namespace) -> int:
    """`dots shards select FOLDER [--min-tokens N] [--one-in N] --output NEW`."""
    from dots_data import console

    whole = manifests.read(options.folder)
    try:
        rest = options.all_but_one_in is not None
        rule = Rule(options.min_tokens, options.suffix, options.all_but_one_in if rest else options.one_in, rest)
        selected = select(options.folder, options.output, rule)
    except workspace.OutputError as error:
        raise ShardError(str(error)) from error
    held = {source.name + options.suffix: source for source in whole.sources}
    rows = [
        (source.name, source.rows, source.tokens, 100 * source.tokens / max(1, held[source.name].tokens))
        for source in selected.sources
    ]
    title = f"{options.output}: {rule}"
    console.table(title, ("source", "documents", "tokens", "% of its tokens"), rows)
    return 0
