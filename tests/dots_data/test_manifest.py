"""A manifest is written whole, has one spelling, and is believed only if it adds up."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dots_data.tokens import batches, manifest
from dots_data.tokens.batches import BatchEntry, Batches
from dots_data.tokens.manifest import (
    Companion,
    Manifest,
    ManifestError,
    Recipe,
    Shard,
    Source,
    Span,
    TokenizerInfo,
)

INFO = TokenizerInfo("tokenizer.json", "ab" * 32, 300, "<eos>", 299, None, {"<eos>": 299})


def shard(number: int, source: str = "crawl") -> Shard:
    batches = Batches.of([BatchEntry(520, 480, 2, 100, 640, 1), BatchEntry(1000, 300, 1, 50, 1088, 2)])
    beside = Companion(f"shard-{number:05d}.provenance.parquet", 99, "0" * 32)
    return Shard(f"shard-{number:05d}.arrow", source, "job", 3, 150, 2000, "1" * 32, Span(8, 500), batches, beside)


def dataset() -> Manifest:
    sources = (Source("books", 3, 150), Source("crawl", 6, 300))
    return Manifest(
        INFO, "uint16", Recipe("recipe", "job"), 7, 9, 450, sources, (shard(0, "books"), shard(1), shard(2))
    )


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = manifest.write(tmp_path, dataset())
    assert path == tmp_path / "manifest.json"
    assert manifest.read(tmp_path) == manifest.read(path) == dataset()
    assert json.loads(path.read_bytes())["id"] == dataset().id
    assert sorted(one.name for one in tmp_path.iterdir()) == [json.loads(path.read_bytes())["batches"], "manifest.json"]
    assert list(dataset().shards[0].batches)[1] == BatchEntry(1000, 300, 1, 50, 1088, 2)
    assert dataset().shards[0].batches[-1:] == [BatchEntry(1000, 300, 1, 50, 1088, 2)]


def test_a_shard_entry_survives_json() -> None:
    mapping = json.loads(json.dumps(manifest.shard_mapping(shard(0))))
    assert manifest.shard_from(mapping, "here") == shard(0)
    assert mapping["source"] == "crawl"


def test_the_id_is_of_the_content_alone(tmp_path: Path) -> None:
    shuffled = json.loads(manifest.write(tmp_path, dataset()).read_bytes())
    (tmp_path / "manifest.json").write_text(json.dumps(dict(reversed(shuffled.items())), indent=3))
    assert manifest.read(tmp_path).id == dataset().id


def test_the_smallest_type_that_holds_the_vocabulary() -> None:
    def dtype(size: int) -> str:
        return TokenizerInfo("t", "", size, "", 0, None, {}).dtype

    assert [dtype(1), dtype(65536), dtype(65537), dtype(152064)] == ["uint16", "uint16", "uint32", "uint32"]


def _set(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        inner: Any = content
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = value

    return change


WRONG = [
    (_set("format", value="mds"), "format: 'mds'"),
    (_set("version", value=1), "version: 1 cannot be read here, only 2"),
    (_set("seed", value="7"), "seed: expected int, found '7'"),
    (_set("seed", value=True), "seed: expected int"),
    (_set("tokens", value=451), "tokens of shards: 451 is said, the parts add up to 450"),
    (_set("documents", value=-1), "documents: -1 is no count"),
    (_set("dtype", value="int8"), "dtype: 'int8' is not one of"),
    (_set("tokenizer", "vocab_size", value=70000), "dtype: uint16 cannot hold 70000"),
    (_set("tokenizer", "eos_id", value=300), "tokenizer: eos_id: 300 is not an id of 300"),
    (_set("tokenizer", "file", value="../tokenizer.json"), "is not a file inside the folder"),
    (_set("sources", 0, "rows", value=4), "sources: books: rows: 4 is said, the parts add up to 3"),
    (_set("sources", 1, "tokens", value=301), "sources: crawl: tokens: 301 is said"),
    (_set("sources", 0, "name", value="crawl"), "sources: not sorted by name, or one is named twice"),
    (_set("sources", 1, "name", value="a"), "sources: not sorted by name, or one is named twice"),
    (_set("sources", 1, "name", value="x\x1b[0m"), "sources: 'x\\x1b[0m' is no plain name"),
    (_set("sources", 1, "name", value="x" * 65), "is no plain name"),
    (_set("sources", value=[{"name": f"s{i:04}", "rows": 0, "tokens": 0} for i in range(1001)]), "1001 of them"),
    (_set("shards", 1, "source", value="books"), "sources: books: rows: 3 is said, the parts add up to 6"),
    (_set("shards", 1, "source", value="news"), "shards[1] (shard-00001.arrow): source: 'news' is not in sources"),
    (lambda content: content["shards"][0].pop("source"), "shards[0]: source: missing"),
    (_set("shards", 1, "file", value="/etc/passwd"), "shards[1]: file: '/etc/passwd'"),
    (_set("shards", 1, "surprise", value=1), "shards[1]: surprise: unknown key"),
    (_set("shards", 1, "rows", value=4), "documents of shards"),
    (_set("shards", 1, "batches", value=[2]), "shards[1]: batches: expected dict"),
    (_set("shards", 1, "batches", "count", value=-2), "shards[1]: batches: count: -2 is no count"),
    (_set("shards", 1, "batches", "digest", value="0" * 32), "is not named by the digests of the shards"),
    (_set("batches", value="../batches.i64"), "is not a file inside the folder"),
    (_set("batches", value="batches.i64"), "is not named by the digests of the shards"),
    (_set("shards", 0, value=[]), "shards[0]: expected an object, found list"),
    (_set("recipe", "data", value="another"), "it was changed or cut"),
    (lambda content: content.pop("recipe"), "recipe: missing"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_wrong_is_named(tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    path = manifest.write(tmp_path, dataset())
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ManifestError, match=re.escape(message)) as raised:
        manifest.read(tmp_path)
    assert str(raised.value).startswith(str(path))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        manifest.read(tmp_path)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is this a folder of token shards"):
        manifest.read(tmp_path)


def _entry(number: int, **changed: int) -> Callable[[bytearray], None]:
    """Change a row of the second shard's table."""

    def change(content: bytearray) -> None:
        at = batches.ROW * (2 + number)
        row = BatchEntry(*np.frombuffer(content[at : at + batches.ROW], "<i8").tolist())._replace(**changed)
        content[at : at + batches.ROW] = np.array(row, "<i8").tobytes()

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_entry(0, rows=3), "shard-00001.arrow): rows: 3 is said, the batches add up to 4"),
        (_entry(1, tokens=51), "tokens: 150 is said, the batches add up to 151"),
        (_entry(1, offset=990), "batches[1]: its bytes do not fit"),
        (_entry(1, tokens_at=1056), "batches[1]: its bytes do not fit"),
        (_entry(0, length=2**60), "no counts or offsets"),
        (_entry(0, crc32=-1), "no counts or offsets"),
    ],
    ids=["rows", "tokens", "offset", "tokens_at", "length", "crc32"],
)
def test_a_table_that_contradicts_itself_is_refused(
    tmp_path: Path, change: Callable[[bytearray], None], message: str
) -> None:
    """A table that its manifest vouches for: what made both was wrong."""
    whole = dataset()
    second = whole.shards[1]
    content = bytearray(batches.encoded(shard(0).batches) + batches.encoded(second.batches))
    change(content)
    rows = np.frombuffer(content, "<i8").reshape(-1, batches.COLUMNS)[2:4].tolist()
    wrong = dataclasses.replace(second, batches=Batches.of(rows))
    manifest.write(tmp_path, dataclasses.replace(whole, shards=(whole.shards[0], wrong, *whole.shards[2:])))
    read = manifest.read(tmp_path)
    assert len(read.shards[0].batches.table) == 2
    with pytest.raises(ManifestError, match=re.escape(message.partition("): ")[2] or message)):
        _ = read.shards[1].batches.table


@given(at=st.integers(0), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_table_is_found(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    manifest.write(folder, dataset())
    path = folder / json.loads((folder / "manifest.json").read_bytes())["batches"]
    content = bytearray(path.read_bytes())
    at %= len(content)
    content[at] ^= 1 << bit
    path.write_bytes(content)
    shards = manifest.read(folder).shards
    damaged = at // (2 * batches.ROW)
    with pytest.raises(ManifestError, match=rf"shards\[{damaged}\]: batches: {path.name}: digest is"):
        _ = shards[damaged].batches.table
    assert all(one.batches.rows.sum() == one.rows for one in shards if one is not shards[damaged])


def test_a_table_cut_short_or_missing_is_named(tmp_path: Path) -> None:
    manifest.write(tmp_path, dataset())
    path = next(tmp_path.glob("batches-*.i64"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ManifestError, match=r"95 bytes of 96: it was cut"):
        _ = manifest.read(tmp_path).shards[-1].batches.table
    path.unlink()
    with pytest.raises(ManifestError, match=rf"{path.name}: cannot be read"):
        _ = manifest.read(tmp_path).shards[0].batches.table


def test_opening_reads_no_table(tmp_path: Path) -> None:
    many = [BatchEntry(520 + 640 * i, 640, 1, 100, 640 + 640 * i, 0) for i in range(20_000)]
    one = Shard(
        "a.arrow", "s", "j", 20_000, 2_000_000, 10**9, "", Span(8, 512), Batches.of(many), Companion("b", 0, "")
    )
    whole = Manifest(INFO, "uint16", Recipe(None, "j"), 0, 20_000, 2_000_000, (Source("s", 20_000, 2_000_000),), (one,))
    path = manifest.write(tmp_path, whole)
    assert path.stat().st_size < 2000
    read = manifest.read(tmp_path)
    assert read == whole and list(read.shards[0].batches) == many
    next(tmp_path.glob("batches-*.i64")).unlink()
    assert len(manifest.read(tmp_path).shards[0].batches) == 20_000
