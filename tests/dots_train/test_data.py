"""A sample is a function of g: each token once an epoch, the same batches however cut, exact resume."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_train.data import DataError, ShardReader
from tests.dots_train.datasets import TABLES, Tables, write_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    write_dataset(path, TABLES)
    return path


@given(
    tables=st.lists(
        st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=5), min_size=1, max_size=3),
        min_size=1,
        max_size=3,
    ),
    length=st.integers(1, 40),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_every_window_is_read_once_an_epoch(
    tmp_path_factory: pytest.TempPathFactory, tables: Tables, length: int, seed: int, epoch: int
) -> None:
    folder = tmp_path_factory.mktemp("data")
    documents = write_dataset(folder, tables)
    stream = [token for document in documents for token in document]
    if len(stream) <= length:
        with pytest.raises(DataError, match=f"one window of {length} tokens needs {length + 1}"):
            ShardReader(folder, length, seed)
        return
    reader = ShardReader(folder, length, seed)
    assert reader.windows == (len(stream) - 1) // length
    first = reader.windows * epoch
    expected = sorted(stream[i * length : i * length + length + 1] for i in range(reader.windows))
    assert sorted(reader.window(g)[0].tolist() for g in range(first, first + reader.windows)) == expected
    batch = reader.batch(first, reader.windows)
    read = Counter(batch.tokens_BS.flatten().tolist())
    assert read == Counter(stream[: reader.windows * length])
    shutil.rmtree(folder)


def test_positions_and_documents_follow_the_borders(folder: Path) -> None:
    starts = set(np.cumsum([0, *(size for table in TABLES for sizes in table for size in sizes)]).tolist())
    reader = ShardReader(folder, 16, seed=3)
    batch = reader.batch(0, reader.windows)
    for row, window in enumerate(reader.window_of(0, reader.windows).tolist()):
        position, document = -1, 0
        for place in range(16):
            begins = window * 16 + place in starts
            position = 0 if begins else position + 1
            document += begins and place > 0
            assert batch.position_BS[row, place] == position
            assert batch.document_BS[row, place] == document
        inside = reader.window(row)[1]
        assert inside.tolist() == [place for place in range(16) if window * 16 + place in starts]


def test_batches_are_long_integers_and_targets_follow(folder: Path) -> None:
    batch = ShardReader(folder, 8, seed=1).batch(2, 3)
    for tensor in (batch.tokens_BS, batch.targets_BS, batch.position_BS, batch.document_BS):
        assert tensor.shape == (3, 8) and tensor.dtype == torch.int64 and tensor.is_contiguous()
    assert torch.equal(batch.tokens_BS[:, 1:], batch.targets_BS[:, :-1])


@given(cuts=st.lists(st.integers(1, 7), min_size=1, max_size=8), first=st.integers(0, 60))
@settings(max_examples=30, deadline=None)
def test_batches_do_not_depend_on_how_they_are_cut(folder: Path, cuts: list[int], first: int) -> None:
    reader = ShardReader(folder, 16, seed=9, verify=False)
    whole = reader.batch(first, sum(cuts))
    parts, g = [], first
    for n in cuts:
        parts.append(ShardReader(folder, 16, seed=9, verify=False).batch(g, n))
        g += n
    for name in ("tokens_BS", "targets_BS", "position_BS", "document_BS"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


def test_seeds_and_epochs_read_in_other_orders(folder: Path) -> None:
    reader = ShardReader(folder, 4, seed=1)
    orders = [reader.window_of(epoch * reader.windows, reader.windows).tolist() for epoch in range(3)]
    orders.append(ShardReader(folder, 4, seed=2).window_of(0, reader.windows).tolist())
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(reader.windows)) for order in orders)


def test_where_names_the_documents_of_a_window(folder: Path) -> None:
    documents = [[size for sizes in table for size in sizes] for table in TABLES]  # lengths by shard and row
    flat = [(number, row) for number, table in enumerate(documents) for row in range(len(table))]
    reader = ShardReader(folder, 16, seed=3)
    for g in range(reader.windows):
        tokens = reader.window(g)[0].tolist()
        at = 0
        for place in reader.where(g):
            number, row = flat[int(place.doc_id, 16)]
            assert (place.shard, place.row) == (f"shard-{number:05d}.arrow", row)
            length = place.last - place.first + 1
            ends = place.last == documents[number][row] - 1
            assert (tokens[at + length - 1] == 0) == ends
            at += length
        assert at == 17


def test_the_state_is_small_and_resumes(folder: Path) -> None:
    reader = ShardReader(folder, 16, seed=3)
    state = json.loads(json.dumps(reader.state(5)))
    assert len(json.dumps(state)) < 130
    assert ShardReader(folder, 16, seed=3).resume(state) == 5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("manifest", "0" * 32, "manifest is"),
        ("seed", 4, "seed is 3 here, the saved state was made with 4"),
        ("sequence_length", 8, "sequence_length is 16 here"),
        ("order", 0, "order is 1 here"),
        ("g", -1, "g = -1"),
        ("g", "5", "g = '5'"),
        ("g", None, "has no 'g'"),
    ],
)
def test_a_state_from_elsewhere_is_refused(folder: Path, name: str, value: object, message: str) -> None:
    reader = ShardReader(folder, 16, seed=3)
    state: dict[str, object] = {**reader.state(5), name: value}
    if value is None:
        del state[name]
    with pytest.raises(DataError, match=message):
        reader.resume(state)  # type: ignore[arg-type]


def test_a_dataset_of_other_documents_is_another_dataset(folder: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path, [*TABLES, [[4]]])
    with pytest.raises(DataError, match="manifest is"):
        ShardReader(tmp_path, 16, 3).resume(ShardReader(folder, 16, 3).state(0))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "manifest.json").unlink(), "is this a folder of token shards"),
        (
            lambda f: (f / "shard-00001.arrow").unlink(),
            r"shard-00001\.arrow: named by the manifest, but No such",
        ),
        (lambda f: _cut(f / "shard-00001.arrow"), r"shard-00001\.arrow: \d+ bytes, the manifest says \d+"),
        (lambda f: _fill(f / "shard-00001.arrow"), r"shard-00001\.arrow: cannot be read as an Arrow file"),
        (lambda f: _swap(f), r"shard-00002\.arrow: tokenizer is 'f+'"),
    ],
)
def test_spoilt_data_is_refused_at_the_door(folder: Path, tmp_path: Path, spoil: object, message: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert callable(spoil)
    spoil(copy)
    with pytest.raises(DataError, match=message):
        ShardReader(copy, 16, seed=3)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _fill(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def _swap(folder: Path) -> None:
    """A shard of the same size and layout that another tokenizer made."""
    path = folder / "shard-00002.arrow"
    path.write_bytes(path.read_bytes().replace(hashlib.sha256(b"{}").hexdigest().encode(), b"f" * 64))


@pytest.mark.parametrize("length", [0, -1])
def test_a_window_of_nothing_is_refused(folder: Path, length: int) -> None:
    with pytest.raises(DataError, match="sequence_length"):
        ShardReader(folder, length, seed=0)


def test_samples_are_counted_from_zero(folder: Path) -> None:
    with pytest.raises(DataError, match="from 0"):
        ShardReader(folder, 16, seed=0).batch(-1, 2)


def test_reading_needs_nothing_of_the_data_side(folder: Path) -> None:
    """In a process that cannot import what only the data side needs."""
    program = """
import sys
for name in ("ray", "pyspark", "tokenizers", "gigatoken", "xxhash", "rich", "fastwarc", "awkward"):
    sys.modules[name] = None
from dots_train.data import ShardReader
print(ShardReader(sys.argv[1], 16, 3).batch(0, 2).tokens_BS.sum().item())
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=120, check=True
    )
    assert int(ran.stdout) == int(ShardReader(folder, 16, 3).batch(0, 2).tokens_BS.sum())
