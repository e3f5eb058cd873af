"""Shards hold what was put in, lie where the manifest says, and a changed bit is found."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_data.tokens import manifest, shards
from dots_data.tokens.manifest import Manifest, Recipe, TokenizerInfo
from dots_data.tokens.shards import PROVENANCE, Documents, Header, ShardError, record_batch

SOURCES = ("books", "crawl")
Rows = list[list[int]]  # tokens without EOS


def header(vocab_size: int = 1000, source: str = "crawl") -> Header:
    info = TokenizerInfo(
        "tokenizer.json", hashlib.sha256(b"{}").hexdigest(), vocab_size, "<eos>", 0, None, {"<eos>": 0}
    )
    return Header(info, source, "recipe", "job", 7)


def as_documents(rows: Rows, first: int = 0) -> Documents:
    lengths = [len(tokens) + 1 for tokens in rows]
    names = [hashlib.blake2b(str(first + i).encode(), digest_size=16).digest() for i in range(len(rows))]
    return Documents(
        np.array([token for tokens in rows for token in (*tokens, 0)], dtype=np.uint32),
        np.cumsum([0, *lengths], dtype=np.int64),
        pa.array(names, pa.binary(16)),
        np.zeros(len(rows), dtype=np.uint8),
    )


def write_dataset(folder: Path, tables: list[list[Rows]], vocab_size: int = 1000, first: int = 0) -> Manifest:
    """A dataset of shards, each of record batches, each of rows; the first half of the shards are books.

    Ids of documents are made from their numbers, from `first` on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_bytes(b"{}")
    entries = []
    for number, table in enumerate(tables):
        head = header(vocab_size, SOURCES[2 * number // len(tables)])
        batches = []
        for rows in table:
            batches.append(record_batch(as_documents(rows, first), head))
            first += len(rows)
        ids = [doc_id.hex() for batch in batches for doc_id in batch.column("doc_id").to_pylist()]
        lengths = [len(tokens) + 1 for rows in table for tokens in rows]
        columns = {field.name: pa.nulls(len(ids), field.type) for field in PROVENANCE}
        columns["url"] = pa.array([f"https://a.example/{doc_id}" for doc_id in ids])
        columns["warc_file"] = pa.array([f"crawl-{number}.warc.gz"] * len(ids))
        columns["warc_offset"] = pa.array(range(0, 100 * len(ids), 100), pa.int64())
        columns["language"] = pa.array([("en", "zh")[row % 2] for row in range(len(ids))])
        origin = pa.table({**columns, "doc_id": ids, "tokens": lengths}, schema=PROVENANCE)
        entries.append(shards.write_shard(folder, f"shard-{number:05d}", batches, origin, head))
    dataset = Manifest(
        head.tokenizer,
        head.tokenizer.dtype,
        Recipe("recipe", "job"),
        7,
        sum(entry.rows for entry in entries),
        sum(entry.tokens for entry in entries),
        shards.sources_of(entries),
        tuple(entries),
    )
    manifest.write(folder, dataset)
    return dataset


def some_rows(seed: int, count: int, vocab_size: int = 1000) -> Rows:
    chosen = random.Random(seed)
    return [[chosen.randrange(1, vocab_size) for _ in range(chosen.randrange(60))] for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dataset")
    write_dataset(path, [[some_rows(1, 20), some_rows(2, 1), some_rows(3, 7)], [some_rows(4, 30)]])
    return path


rows_strategy = st.lists(st.lists(st.integers(1, 999), max_size=40), min_size=1, max_size=12)


@given(
    tables=st.lists(st.lists(rows_strategy, min_size=1, max_size=4), min_size=1, max_size=3),
    wide=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_what_was_put_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory, tables: list[list[Rows]], wide: bool
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    vocab_size = 70_000 if wide else 1000
    dataset = write_dataset(folder, tables, vocab_size)
    assert shards.verify(folder) == []
    width = 4 if wide else 2
    for entry, table in zip(dataset.shards, tables, strict=True):
        content = (folder / entry.file).read_bytes()
        assert len(entry.batches) == len(table)
        for number, (place, rows) in enumerate(zip(entry.batches, table, strict=True)):
            flat = [token for tokens in rows for token in (*tokens, 0)]
            # The three ways to the tokens: Arrow, two ranged reads, and the bytes where the manifest says.
            batch = shards.read_batch(folder / entry.file, entry, number)
            assert batch.column("tokens").to_pylist() == [[*tokens, 0] for tokens in rows]
            assert batch.column("source").to_pylist() == [entry.source] * len(rows)
            values = np.frombuffer(content, dataset.dtype, place.tokens, place.tokens_at)
            assert values.tolist() == flat and place.tokens_at % 64 == 0
            borders = np.frombuffer(content, "<i8", place.rows + 1, place.tokens_at - 8 * (place.rows + 1))
            assert borders.tolist() == np.cumsum([0, *(len(tokens) + 1 for tokens in rows)]).tolist()
            message = pa.ipc.read_message(content[place.offset : place.offset + place.length])
            assert message.type == "record batch" and message.body.size >= width * len(flat)
        assert pa.ipc.open_file(content).read_all()["tokens"].to_pylist() == [
            [*tokens, 0] for rows in table for tokens in rows
        ]
    shutil.rmtree(folder)


def test_a_shard_says_what_made_it(folder: Path) -> None:
    with pa.memory_map(str(folder / "shard-00000.arrow")) as file:
        schema = pa.ipc.open_file(file).schema
    assert schema.metadata == {
        b"format": b"dots-tokens/2",
        b"source": b"books",
        b"tokenizer": hashlib.sha256(b"{}").hexdigest().encode(),
        b"vocab_size": b"1000",
        b"eos_id": b"0",
        b"special": b'{"<eos>":0}',
        b"dtype": b"uint16",
        b"recipe": b"recipe",
        b"job": b"job",
        b"seed": b"7",
    }
    assert str(schema.field("tokens").type) == "large_list<item: uint16 not null>"
    assert [str(schema.field(name).type) for name in ("doc_id", "bucket")] == [
        "fixed_size_binary[16]",
        "uint8",
    ]


def test_equal_rows_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, [[some_rows(1, 20), some_rows(2, 1), some_rows(3, 7)], [some_rows(4, 30)]])
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_peek(folder: Path) -> None:
    shown = shards.peek(folder, shard=0, rows=22)
    assert [one["row"] for one in shown] == list(range(22))
    assert shown[20]["doc_id"] == hashlib.blake2b(b"20", digest_size=16).hexdigest()
    assert shown[0]["ids"] == [*some_rows(1, 20)[0], 0][:32]
    assert shards.provenance(folder, "shard-00001.arrow", [3, 1])[0]["doc_id"] == (
        hashlib.blake2b(b"31", digest_size=16).hexdigest()
    )
    with pytest.raises(ShardError, match="has shards 0 to 1, not 2"):
        shards.peek(folder, shard=2)
    with pytest.raises(ShardError, match="names no shard 'x'"):
        shards.provenance(folder, "x", [0])


@pytest.fixture(scope="module")
def spoilt(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy to be damaged and mended."""
    path = tmp_path_factory.mktemp("spoilt") / "copy"
    shutil.copytree(folder, path)
    return path


def regions(folder: Path) -> dict[str, range]:
    """The bytes of the first shard by what they are."""
    entry = manifest.read(folder).shards[0]
    place, end = entry.batches[0], entry.batches[-1].offset + entry.batches[-1].length
    borders = place.tokens_at - 8 * (place.rows + 1)
    body_end = place.tokens_at + 2 * place.tokens
    return {
        "magic": range(0, entry.header.offset),
        "schema and dictionaries": range(entry.header.offset, entry.header.offset + entry.header.length),
        "metadata of a record batch": range(place.offset, borders),
        "borders": range(borders, place.tokens_at),
        "tokens": range(place.tokens_at, body_end),
        "padding, ids, sources": range(body_end, place.offset + place.length),
        "footer": range(end, entry.bytes),
    }


@pytest.mark.parametrize("region", list(range(7)))
@given(at=st.integers(0), bit=st.integers(0, 7))
@settings(max_examples=25)
def test_a_flipped_bit_anywhere_in_a_shard_is_found(spoilt: Path, region: int, at: int, bit: int) -> None:
    places = list(regions(spoilt).values())[region]
    flip_and_verify(spoilt, "shard-00000.arrow", places[at % len(places)], bit)


@pytest.mark.parametrize("name", ["shard-00001.provenance.parquet", "tokenizer.json", "manifest.json", "batches-*.i64"])
@given(at=st.integers(0), bit=st.integers(0, 7))
@settings(max_examples=25)
def test_a_flipped_bit_beside_the_shards_is_found(spoilt: Path, name: str, at: int, bit: int) -> None:
    (path,) = spoilt.glob(name)
    flip_and_verify(spoilt, path.name, at % path.stat().st_size, bit)


def flip_and_verify(folder: Path, name: str, at: int, bit: int) -> None:
    path = folder / name
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[at] ^= 1 << bit
    path.write_bytes(changed)
    try:
        problems = shards.verify(folder)
    finally:
        path.write_bytes(whole)
    assert problems and name in problems[0], (name, at)
    assert shards.verify(folder) == []


def test_a_shard_cut_short_and_a_missing_one_are_named(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / "shard-00000.arrow"
    path.write_bytes(path.read_bytes()[:-100])
    (copy / "shard-00001.arrow").unlink()
    (copy / "shard-00001.provenance.parquet").unlink()
    problems = shards.verify(copy)
    assert len(problems) == 3
    assert "shard-00000.arrow" in problems[0] and "bytes, the manifest says" in problems[0]
    assert "shard-00001.arrow: named by the manifest, but No such file" in problems[1]


def rewritten(folder: Path, number: int, **changes: object) -> None:
    """Make the manifest believe in changed files: what only reading the content can find."""
    dataset = manifest.read(folder)
    entry = dataset.shards[number]
    path, beside = folder / entry.file, folder / entry.provenance.file
    changed = dataclasses.replace(
        entry,
        bytes=path.stat().st_size,
        xxh3=shards.checksum(path),
        batches=shards.read_layout(path)[1],
        provenance=dataclasses.replace(entry.provenance, bytes=beside.stat().st_size, xxh3=shards.checksum(beside)),
        **changes,  # type: ignore[arg-type]
    )
    entries = (*dataset.shards[:number], changed, *dataset.shards[number + 1 :])
    manifest.write(folder, dataclasses.replace(dataset, shards=entries))


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, 1000, "token id 1000 is not below the vocabulary of 1000"),
        (-1, 5, "does not end with EOS"),
    ],
)
def test_content_that_no_checksum_shows(folder: Path, tmp_path: Path, at: int, value: int, message: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    place = manifest.read(copy).shards[1].batches[0]
    content = bytearray((copy / "shard-00001.arrow").read_bytes())
    offset = place.tokens_at + 2 * (at % place.tokens)
    content[offset : offset + 2] = value.to_bytes(2, "little")
    (copy / "shard-00001.arrow").write_bytes(content)
    rewritten(copy, 1)
    assert [message in problem for problem in shards.verify(copy)] == [True]


def test_borders_that_do_not_rise_are_found(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    place = manifest.read(copy).shards[1].batches[0]
    content = bytearray((copy / "shard-00001.arrow").read_bytes())
    second = place.tokens_at - 8 * place.rows
    content[second : second + 8] = (2**40).to_bytes(8, "little")
    (copy / "shard-00001.arrow").write_bytes(content)
    rewritten(copy, 1)
    assert "document borders do not rise" in shards.verify(copy)[0]


def test_documents_of_another_source_are_found(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    whole = (copy / "shard-00001.arrow").read_bytes()
    table = whole.replace(b"\x05\0\0\0crawl", b"\x05\0\0\0books").replace(b"crawl\0\0\0", b"books\0\0\0")
    assert len(table) == len(whole)
    (copy / "shard-00001.arrow").write_bytes(table)
    rewritten(copy, 1)
    assert "batch 0: holds documents of 'books', its shard is of 'crawl'" in " ".join(shards.verify(copy))


def test_provenance_in_another_order_is_found(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / "shard-00001.provenance.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take([1, 0, *range(2, len(table))]), path)
    rewritten(copy, 1)
    assert "the provenance has other documents, or in another order" in shards.verify(copy)[0]


def test_batches_elsewhere_than_said_are_found(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    entry = manifest.read(copy).shards[0]
    rewritten(copy, 0, header=dataclasses.replace(entry.header, length=entry.header.length - 8))
    assert "its batches lie elsewhere" in shards.verify(copy)[0]


@pytest.mark.parametrize(
    ("values", "borders", "message"),
    [
        ([5, 0, 1000, 0], [0, 2, 4], "token id 1000 is not below the vocabulary of 1000"),
        ([5, 0, 7, 7], [0, 2, 4], "does not end with EOS"),
        ([5, 0], [0, 2, 2], "does not end with EOS"),
    ],
)
def test_tokens_that_cannot_stand_in_a_shard(values: list[int], borders: list[int], message: str) -> None:
    good = as_documents([[5], [7]])
    bad = dataclasses.replace(good, values=np.array(values, np.uint32), borders=np.array(borders, np.int64))
    with pytest.raises(ShardError, match=message):
        record_batch(bad, header())


def test_provenance_of_other_rows_is_refused(tmp_path: Path) -> None:
    batch = record_batch(as_documents([[5]]), header())
    with pytest.raises(ShardError, match="its provenance is of other rows"):
        shards.write_shard(tmp_path, "shard-00000", [batch], PROVENANCE.empty_table(), header())
    assert not list(tmp_path.glob("shard-*"))


def test_what_is_no_shard_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    for content in (b"", b"ARROW1\0\0", b"x" * 1000):
        path.write_bytes(content)
        with pytest.raises(ShardError, match=r"x\.arrow: cannot be read as a shard"):
            shards.read_layout(path)
