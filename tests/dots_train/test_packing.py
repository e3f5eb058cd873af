"""Packing: every token once an epoch, no document cut that fits, and what is filled up asks for nothing."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_train.data import IGNORE, DataError, ShardReader
from dots_train.data.packing import best_fit
from tests.dots_train.datasets import TABLES, Tables, write_dataset


def one_by_one(lengths: list[int], capacity: int) -> list[int]:
    """Best-fit decreasing as its definition has it."""
    bins: list[int] = [0] * len(lengths)
    room: list[tuple[int, int]] = []  # (room, bin), those of equal room in the order in which they came to it
    opened = 0
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [entry for entry in room if entry[0] >= lengths[item]]
        if fitting:
            entry = min(fitting, key=lambda entry: entry[0])
            room.remove(entry)
        else:
            entry, opened = (capacity, opened), opened + 1
        bins[item] = entry[1]
        room.append((entry[0] - lengths[item], entry[1]))
    return bins


@given(capacity=st.integers(1, 30), data=st.data())
@settings(max_examples=300)
def test_all_of_a_length_at_a_time_is_one_by_one(capacity: int, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, capacity), max_size=60))
    assert best_fit(np.array(lengths, dtype=np.int64), capacity).tolist() == one_by_one(lengths, capacity)


def test_many_documents_leave_little_empty() -> None:
    chosen = np.random.default_rng(1)
    lengths = np.minimum(4096, chosen.lognormal(6, 1, 200_000).astype(np.int64) + 1)
    bins = best_fit(lengths, 4096)
    used = np.bincount(bins, weights=lengths)
    assert used.max() <= 4096
    assert len(used) <= 1.001 * lengths.sum() / 4096 + 1


@given(
    tables=st.lists(
        st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), min_size=1, max_size=3), min_size=1, max_size=3
    ),
    length=st.integers(1, 30),
    epoch=st.integers(0, 2),
)
@settings(max_examples=60)
def test_every_token_is_read_once_an_epoch(
    tmp_path_factory: pytest.TempPathFactory, tables: Tables, length: int, epoch: int
) -> None:
    folder = tmp_path_factory.mktemp("data")
    documents = write_dataset(folder, tables)
    reader = ShardReader(folder, length, seed=1, packed=True)
    batch = reader.batch(reader.windows * epoch, reader.windows)
    expected = Counter(
        tuple(document[at : at + length]) for document in documents for at in range(0, len(document), length)
    )
    follow = {token: following for document in documents for token, following in pairwise(document)}
    # EOS, 0, is also what fills a row up: how much of a row is not that is asked of the layout.
    used = [
        len(reader.layout.read(row)[0]) for row in reader.window_of(reader.windows * epoch, reader.windows).tolist()
    ]
    tokens, targets = batch.tokens_BS.flatten(), batch.targets_BS.flatten()
    read: Counter[tuple[int, ...]] = Counter()
    for first, stop in pairwise(batch.cu_seqlens.tolist()):
        piece = tuple(tokens[first:stop].tolist())
        assert targets[first:stop].tolist() == [IGNORE if token == 0 else follow[token] for token in piece]
        row, place = divmod(first, length)
        if place < used[row]:
            read[piece] += 1
        else:
            assert not any(piece)
    assert read == expected
    assert batch.max_length == max(np.diff(batch.cu_seqlens)) and batch.cu_seqlens.dtype == torch.int32
    shutil.rmtree(folder)


def test_segments_are_numbered_and_counted_from_their_start(tmp_path: Path) -> None:
    write_dataset(tmp_path, [[[5, 3, 7, 20, 1]]])
    reader = ShardReader(tmp_path, 8, seed=0, packed=True)
    batch = reader.batch(0, reader.windows)
    rows = {tuple(row) for row in np.stack([batch.document_BS.numpy(), batch.position_BS.numpy()], 2).reshape(-1, 16)}
    # 20 = 8 + 8 + 4; then 7 + 1, 5 + 3, and 4 with padding of 4.
    assert reader.windows == 5
    both = [[(0, i) for i in range(first)] + [(1, i) for i in range(8 - first)] for first in (8, 7, 5, 4)]
    assert rows == {tuple(value for pair in one for value in pair) for one in both}


def test_the_index_is_built_once_and_named_by_what_it_is_of(tmp_path: Path) -> None:
    write_dataset(tmp_path, TABLES)
    first = ShardReader(tmp_path, 16, seed=1, packed=True)
    (path,) = tmp_path.glob("packing-*")
    assert path.name == f"packing-{first.id}-all-16-v1.index"
    before = path.stat().st_mtime_ns
    other = ShardReader(tmp_path, 16, seed=1, packed=True, source="crawl", index_folder=tmp_path / "elsewhere")
    assert torch.equal(first.batch(0, 9).tokens_BS, other.batch(0, 9).tokens_BS)
    assert torch.equal(
        ShardReader(tmp_path, 16, seed=1, packed=True).batch(0, 9).tokens_BS, first.batch(0, 9).tokens_BS
    )
    assert path.stat().st_mtime_ns == before
    assert [one.name for one in (tmp_path / "elsewhere").iterdir()] == [path.name.replace("all", "crawl")]


@given(at=st.integers(0), bit=st.integers(0, 7))
@settings(max_examples=50)
def test_a_flipped_bit_of_an_index_is_found(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder, [[[5, 1, 40, 3], [1]]])
    ShardReader(folder, 16, seed=1, packed=True)
    (path,) = folder.glob("packing-*")
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path.name}: is not what was written as a packing index; remove it"):
        ShardReader(folder, 16, seed=1, packed=True)


def test_an_index_cut_short_or_of_another_name_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, TABLES)
    ShardReader(tmp_path, 16, seed=1, packed=True)
    (path,) = tmp_path.glob("packing-*")
    content = path.read_bytes()
    for spoilt in (content[:-1], content[:10], b""):
        path.write_bytes(spoilt)
        with pytest.raises(DataError, match=f"{path.name}: .*remove it"):
            ShardReader(tmp_path, 16, seed=1, packed=True)
    path.write_bytes(content)
    path.rename(path.with_name(path.name.replace("-16-", "-8-")))
    with pytest.raises(DataError, match="is not what was written"):
        ShardReader(tmp_path, 8, seed=1, packed=True)


def test_an_index_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_dataset(tmp_path, TABLES)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="name another folder"):
        ShardReader(tmp_path, 16, seed=1, packed=True, index_folder=tmp_path / "file" / "below")
