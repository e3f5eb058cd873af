"""The fingerprint of documents is of their content alone; ids come back as they were spelt; no bytes pass as text."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_data.tokens import documents
from dots_data.tokens.documents import ROW, DocumentsError, Piece, SourceFrom, digest_of, hexadecimal, numbers_of

BASE: dict[str, Any] = {
    "id": b"0123456789abcdef", "text": "a text", "source": "crawl", "bucket": 3, "record_id": "r", "url": "u",
    "warc_file": "w", "warc_offset": 7, "date": "d", "language": "en", "language_score": 0.5,
}  # fmt: skip
OTHER: dict[str, Any] = {
    "id": b"0123456789abcdeF", "text": "a texT", "source": "books", "bucket": 4, "record_id": None, "url": "",
    "warc_file": "wu", "warc_offset": 70, "date": None, "language": "", "language_score": 0.25,
}  # fmt: skip


def batch(*rows: dict[str, Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(list(rows), schema=ROW)


def test_every_value_counts_and_so_does_its_place() -> None:
    rows = [BASE, *({**BASE, name: value} for name, value in OTHER.items())]
    rows += [{**BASE, "url": "ur", "record_id": ""}, {**BASE, "url": "", "record_id": "ru"}, {**BASE, "url": None}]
    rows += [{**BASE, "warc_file": "", "url": "uw"}, {**BASE, "text": "", "url": "a text"}]
    assert len({digest_of(batch(row)) for row in rows}) == len(rows)


values = st.fixed_dictionaries(
    {name: st.sampled_from([BASE[name], OTHER[name]]) for name in ROW.names}
    | {"text": st.text(max_size=20), "id": st.binary(min_size=16, max_size=16)}
)


@given(rows=st.lists(values, max_size=12), seed=st.integers(0, 100), cut=st.integers(0, 12))
@settings(max_examples=100, deadline=None)
def test_no_order_and_no_division_counts(rows: list[dict[str, Any]], seed: int, cut: int) -> None:
    shuffled = random.Random(seed).sample(rows, len(rows))
    whole = digest_of(batch(*rows))
    for parts in ([shuffled[:cut], shuffled[cut:]], [[row] for row in shuffled]):
        assert sum(digest_of(batch(*part)) for part in parts) % (1 << 128) == whole
    sliced = batch(BASE, *shuffled, OTHER).slice(1, len(rows))
    assert digest_of(sliced) == whole


@given(ids=st.lists(st.binary(min_size=16, max_size=16), max_size=20), start=st.integers(0, 20))
def test_ids_in_numbers_and_digits(ids: list[bytes], start: int) -> None:
    some = pa.array(ids, pa.binary(16)).slice(start)
    assert hexadecimal(some).to_pylist() == [one.hex() for one in ids[start:]]
    assert [number.tobytes() for number in numbers_of(some).astype(">u8")] == ids[start:]
    spelt = pa.array([one.hex() for one in ids], pa.string()).slice(start)
    assert documents._ids(spelt, spelt).to_pylist() == ids[start:]


@pytest.mark.parametrize("name", ["0123456789ABCDEF" * 2, "g" * 32, "ä" * 16, "", "0" * 31, "0" * 33])
def test_a_name_that_is_no_id_is_hashed(name: str) -> None:
    names = pa.array(["0" * 32, name], pa.string())
    expected = [bytes(16), hashlib.blake2b(name.encode(), digest_size=16).digest()]
    assert documents._ids(names, names).to_pylist() == expected


@pytest.mark.parametrize("column", ["text", "url"])
def test_bytes_that_are_no_text_are_named(tmp_path: Path, column: str) -> None:
    """A Parquet file may say of any bytes that they are a string."""
    wrong = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe")]
    )
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array(["x"]), **{column: wrong}}), path)
    with pytest.raises(DocumentsError, match=rf"a\.parquet: column {column}: Invalid UTF8"):
        documents.survey(Piece(str(path), (0,)), SourceFrom("crawl"), 0)


def test_a_survey_counts_what_there_is(tmp_path: Path) -> None:
    rows = [{**BASE, "doc_id": f"{n:032x}", "text": "x" * n, "source": "ab"[n % 2]} for n in range(60)]
    for row in rows:
        del row["id"]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=7)
    pieces = documents.pieces([str(tmp_path / "a.parquet")], 500)
    assert len(pieces) > 3
    parts = [documents.survey(piece, SourceFrom("crawl"), 0) for piece in pieces]
    total = documents.Survey.total(parts)
    assert (total.rows, total.empty, total.bytes) == (59, 1, sum(range(60)))
    assert total.sources == {"a": sum(range(0, 60, 2)), "b": sum(range(1, 60, 2))}
    assert total.histogram.sum() == total.bytes
    for size in (1, 300, 10_000):
        bound = documents.sample_bound(total, size)
        found = [one for piece in pieces for one in documents.sample(piece, SourceFrom("crawl"), 0, bound)]
        assert sum(len(text) for _, _, text in found) == total.histogram[:bound].sum() >= min(size, total.bytes)
