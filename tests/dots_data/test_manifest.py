"""A manifest is written whole, has one spelling, and is believed only if it adds up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dots_data.tokens import manifest
from dots_data.tokens.manifest import (
    BatchEntry,
    Batches,
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
    batches = Batches.of([BatchEntry(520, 480, 2, 100, 640), BatchEntry(1000, 300, 1, 50, 1088)])
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
    assert [one.name for one in tmp_path.iterdir()] == ["manifest.json"]
    assert list(dataset().shards[0].batches)[1] == BatchEntry(1000, 300, 1, 50, 1088)
    assert dataset().shards[0].batches[-1:] == [BatchEntry(1000, 300, 1, 50, 1088)]


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
    (_set("shards", 1, "rows", value=4), "shards[1] (shard-00001.arrow): rows"),
    (_set("shards", 1, "batches", "rows", value=[2]), "shards[1]: batches: its columns differ in length"),
    (_set("shards", 1, "batches", "rows", value=[2, "x"]), "shards[1]: batches: rows: expected integers"),
    (_set("shards", 1, "batches", "offset", value=[520, 990]), "batches[1]: its bytes do not fit"),
    (_set("shards", 1, "batches", "tokens_at", value=[640, 1056]), "batches[1]: its bytes do not fit"),
    (_set("shards", 1, "batches", "length", value=[2**60, 1]), "no counts or offsets"),
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


def test_a_table_of_many_batches_is_small_and_quick(tmp_path: Path) -> None:
    many = [BatchEntry(520 + 640 * i, 640, 1, 100, 640 + 640 * i) for i in range(20_000)]
    one = Shard(
        "a.arrow", "s", "j", 20_000, 2_000_000, 10**9, "", Span(8, 512), Batches.of(many), Companion("b", 0, "")
    )
    whole = Manifest(INFO, "uint16", Recipe(None, "j"), 0, 20_000, 2_000_000, (Source("s", 20_000, 2_000_000),), (one,))
    path = manifest.write(tmp_path, whole)
    assert path.stat().st_size < 50 * 20_000
    assert manifest.read(tmp_path) == whole
