"""A dataset in the formats of other trainers, one folder a source, so that each can be weighted there.

    megatron    tokens.bin, tokens.idx: Megatron-Core's IndexedDataset, one sequence a document
    datatrove   00000.ds, .ds.index, .ds.metadata: a file a shard; raw tokens, and the ends of documents in tokens
    mds         shard.00000.mds, index.json: mosaicml-streaming; `tokens` and `doc_id`, a sample a document
    npy         part-00000.npy, .csv.gz: dolma and OLMo; raw tokens (no header, despite the name), and of each document
                start, end, id, file and place there

None of these formats says which tokenizer made it, so `dataset.json` and the tokenizer stand beside. Everything is
streamed, a record batch at a time; the folder takes its name when it is whole.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dots_data.tokens import manifest as manifests
from dots_data.tokens.manifest import DTYPES, Manifest, Shard
from dots_data.tokens.reading import Stretch, origins, stretches
from dots_data.tokens.shards import ShardError

ABOUT = "dataset.json"
MDS_BYTES = 64 << 20
MDS_MOST_BYTES = (1 << 32) - 1  # offsets in a shard are uint32
# Megatron's codes of dtypes. It knows no uint32: ids stand as int32 there.
_MEGATRON_DTYPES = {"uint16": (8, "<u2"), "uint32": (4, "<i4")}
_MEGATRON_HEAD = struct.Struct("<9sQBQQ")


def export(folder: str | Path, kind: str, output: str | Path) -> Path:
    """Write the dataset in `folder` as `kind` (a key of FORMATS) to `output`, and return that.

    Raises:
        ManifestError: no dataset in `folder`. ShardError: it cannot be read, or `output` holds something.
    """
    dataset = manifests.read(folder)
    root, target = manifests.manifest_path(folder).parent, Path(output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ShardError(f"{target}: is there and not empty; choose another --output or remove it")
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    shutil.copyfile(root / dataset.tokenizer.file, temporary / "tokenizer.json")
    for source in dataset.sources:
        inside = temporary / source.name
        inside.mkdir()
        FORMATS[kind](root, dataset, [shard for shard in dataset.shards if shard.source == source.name], inside)
    (temporary / ABOUT).write_text(json.dumps(_about(dataset, kind), indent=1) + "\n", encoding="utf-8")
    for path in sorted(temporary.rglob("*")):
        if path.is_file():
            _sync(path)
    if target.exists():
        target.rmdir()
    os.replace(temporary, target)
    return target


def _about(dataset: Manifest, kind: str) -> dict[str, Any]:
    tokenizer = dataset.tokenizer
    return {
        **{"format": kind, "dataset": dataset.id, "documents": dataset.documents, "tokens": dataset.tokens},
        **{"dtype": _MEGATRON_DTYPES[dataset.dtype][1] if kind == "megatron" else dataset.dtype},
        "tokenizer": {name: getattr(tokenizer, name) for name in ("sha256", "vocab_size", "eos", "eos_id", "bos_id")},
        "sources": {source.name: {"documents": source.rows, "tokens": source.tokens} for source in dataset.sources},
    }


def _megatron(root: Path, dataset: Manifest, shards: Sequence[Shard], inside: Path) -> None:
    """header, lengths int32, byte offsets int64, first sequence of each document int64: a sequence is a document."""
    code, dtype = _MEGATRON_DTYPES[dataset.dtype]
    rows = sum(shard.rows for shard in shards)
    index = inside / "tokens.idx"
    head = _MEGATRON_HEAD.pack(b"MMIDIDX\0\0", 1, code, rows, rows + 1)
    # The three tables are written side by side: of none of them more than a batch is in memory.
    starts = np.cumsum([len(head), 4 * rows, 8 * rows])
    with open(inside / "tokens.bin", "wb") as tokens, open(index, "wb") as file:
        file.write(head)
        done = offset = 0
        for one in _all(root, shards):
            tokens.write(one.values.astype(dtype, copy=False).tobytes())
            lengths = one.lengths
            if int(lengths.max(initial=0)) >= 1 << 31:
                raise ShardError(f"document {one.names[int(lengths.argmax())]}: longer than Megatron's int32 lengths")
            firsts = offset + one.borders[:-1] * np.dtype(dtype).itemsize
            for start, width, column in ((starts[0], 4, lengths.astype("<i4")), (starts[1], 8, firsts.astype("<i8"))):
                file.seek(int(start) + done * width)
                file.write(column.tobytes())
            done, offset = done + len(lengths), offset + len(one.values) * np.dtype(dtype).itemsize
        file.seek(int(starts[2]))
        for first in range(0, rows + 1, 1 << 20):
            file.write(np.arange(first, min(first + (1 << 20), rows + 1), dtype="<i8").tobytes())


def _datatrove(root: Path, dataset: Manifest, shards: Sequence[Shard], inside: Path) -> None:
    width = DTYPES[dataset.dtype]
    for number, shard in enumerate(shards):
        path = inside / f"{number:05d}.ds"
        done = 0
        with open(path, "wb") as tokens, open(f"{path}.index", "wb") as ends:
            for one in stretches(root, shard):
                tokens.write(_little(one.values))
                ends.write((done + one.borders[1:]).astype("<u8").tobytes())
                done += len(one.values)
        Path(f"{path}.metadata").write_text(f"tokenizer.json|{width}\n{done}\n{done:,} tokens", encoding="utf-8")


def _npy(root: Path, dataset: Manifest, shards: Sequence[Shard], inside: Path) -> None:
    for number, shard in enumerate(shards):
        places = _rows(root, shard, ["doc_id", "warc_file", "warc_offset"])
        done = 0
        with (
            open(inside / f"part-{number:05d}.npy", "wb") as tokens,
            _csv_gz(inside / f"part-{number:05d}.csv.gz") as out,
        ):
            for one in stretches(root, shard):
                tokens.write(_little(one.values))
                for start, end, name in zip(
                    one.borders[:-1].tolist(), one.borders[1:].tolist(), one.names, strict=True
                ):
                    place = next(places)
                    if place["doc_id"] != name:
                        raise ShardError(f"{root / shard.provenance.file}: has other documents than its shard")
                    out.writerow((done + start, done + end, name, place["warc_file"] or "", place["warc_offset"] or 0))
                done += len(one.values)


def _mds(root: Path, dataset: Manifest, shards: Sequence[Shard], inside: Path) -> None:
    columns = {
        **{"column_encodings": ["str", f"ndarray:{dataset.dtype}"], "column_names": ["doc_id", "tokens"]},
        **{"column_sizes": [None, None], "compression": None, "format": "mds", "hashes": []},
        **{"size_limit": MDS_BYTES, "version": 2},
    }
    config = json.dumps(columns, sort_keys=True).encode()
    entries: list[dict[str, Any]] = []

    def close(samples: list[bytes]) -> None:
        name = f"shard.{len(entries):05d}.mds"
        first = 4 + 4 * (len(samples) + 1) + len(config)
        offsets = np.cumsum([first, *map(len, samples)])
        if offsets[-1] > MDS_MOST_BYTES:
            raise ShardError(f"a document of {len(samples[-1]):,} bytes: more than an MDS shard can hold")
        with open(inside / name, "wb") as file:
            file.write(struct.pack("<I", len(samples)) + offsets.astype("<u4").tobytes() + config)
            file.writelines(samples)
        raw = {"basename": name, "bytes": int(offsets[-1]), "hashes": {}}
        entries.append({**columns, "raw_data": raw, "samples": len(samples), "zip_data": None})

    samples: list[bytes] = []
    size = 0
    for one in _all(root, shards):
        for name, start, end in zip(one.names, one.borders[:-1].tolist(), one.borders[1:].tolist(), strict=True):
            samples.append(_mds_sample(name, one.values[start:end]))
            size += len(samples[-1])
            if size >= MDS_BYTES:
                close(samples)
                samples, size = [], 0
    if samples:
        close(samples)
    (inside / "index.json").write_text(json.dumps({"version": 2, "shards": entries}), encoding="utf-8")


def _mds_sample(name: str, tokens: npt.NDArray[Any]) -> bytes:
    """The sizes of both columns, uint32; the id; the array: a byte that says one dimension and the type of its length,
    the length, the values."""
    code = next(code for code in range(3) if len(tokens) < 1 << (8 << code))
    array = bytes([1 << 2 | code]) + len(tokens).to_bytes(1 << code, "little") + _little(tokens)
    return struct.pack("<II", len(name), len(array)) + name.encode() + array


FORMATS: dict[str, Callable[[Path, Manifest, Sequence[Shard], Path], None]] = {
    "megatron": _megatron,
    "datatrove": _datatrove,
    "mds": _mds,
    "npy": _npy,
}


def _all(root: Path, shards: Sequence[Shard]) -> Iterator[Stretch]:
    for shard in shards:
        yield from stretches(root, shard)


def _rows(root: Path, shard: Shard, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in origins(root, shard, columns):
        yield from batch.to_pylist()


def _little(values: npt.NDArray[Any]) -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


@contextlib.contextmanager
def _csv_gz(path: Path) -> Iterator[Any]:
    """A writer of rows into a gzip file whose bytes depend on the rows alone."""
    with (
        open(path, "wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
    ):
        yield csv.writer(text)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
