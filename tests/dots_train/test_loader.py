"""The same global batches for any number of ranks and workers, through any change of batch size, from any sample on."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_data.tokens.order import Bijection, key
from dots_train.data import (
    Batch,
    DataError,
    Dataset,
    Loader,
    Order,
    Reader,
    ShardReader,
    Windows,
    open_streams,
    shares,
)
from dots_train.data.order import BLOCK
from dots_train.data.stream import I64
from tests.dots_train.datasets import TABLES, write_dataset

SIZES = [4, 4, 1, 9, 2, 30, 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    write_dataset(path, TABLES)
    return path


def joined(batches: list[Batch]) -> list[torch.Tensor]:
    """Rows of several batches as one."""
    names = ("tokens_BS", "targets_BS", "position_BS", "document_BS")
    return [torch.cat([getattr(one, name) for one in batches]) for name in names]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("packed", [False, True])
def test_ranks_and_workers_make_no_difference(
    folder: Path, tmp_path: Path, world: int, workers: int, packed: bool
) -> None:
    def reader() -> ShardReader:
        return ShardReader(folder, 8, seed=4, packed=packed, index_folder=tmp_path)

    whole = reader()
    ranks = [list(Loader(reader(), workers)(shares(5, SIZES, rank, world))) for rank in range(world)]
    g = 5
    for step, size in enumerate(SIZES):
        # A rank without a share of this batch has none to be joined.
        parts = [
            batch
            for rank, batches in enumerate(ranks)
            for share, batch in zip(shares(5, SIZES, rank, world), batches, strict=True)
            if g <= share.g < g + size
        ]
        assert step < len(SIZES)
        for mine, theirs in zip(joined(parts), joined([whole.batch(g, size)]), strict=True):
            assert torch.equal(mine, theirs)
        g += size


@given(
    g=st.integers(0, 10**12),
    sizes=st.lists(st.integers(0, 40), max_size=8),
    world=st.integers(1, 9),
    micro=st.none() | st.integers(1, 7),
)
def test_shares_are_a_partition(g: int, sizes: list[int], world: int, micro: int | None) -> None:
    taken = [list(shares(g, sizes, rank, world, micro)) for rank in range(world)]
    samples = sorted(share.g + i for one in taken for share in one for i in range(share.n))
    assert samples == list(range(g, g + sum(sizes)))
    assert all(0 < share.n <= (micro or 40) for one in taken for share in one)
    for one in taken:
        assert [share.g for share in one] == sorted(share.g for share in one)


@given(sizes=st.lists(st.integers(1, 12), min_size=2, max_size=8), data=st.data())
@settings(max_examples=30)
def test_resuming_anywhere_is_never_stopping(folder: Path, sizes: list[int], data: st.DataObject) -> None:
    unbroken = joined(list(Loader(ShardReader(folder, 8, seed=4))(shares(0, sizes))))
    at = data.draw(st.integers(0, sum(sizes) - 1))
    state = json.loads(json.dumps(ShardReader(folder, 8, seed=4).state(at)))
    again = ShardReader(folder, 8, seed=4)
    others = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=20))
    rest = joined(list(Loader(again, workers=1)(shares(again.resume(state), others))))
    for one, other in zip(unbroken, rest, strict=True):
        common = min(len(one) - at, len(other))
        assert torch.equal(one[at : at + common], other[:common])


def test_what_is_read_ahead_is_bounded_and_given_up(folder: Path) -> None:
    reader = ShardReader(folder, 8, seed=4)
    read: list[int] = []

    class Noting:
        def batch(self, g: int, n: int) -> Batch:
            read.append(g)
            return reader.batch(g, n)

        def prefetch(self, g: int, n: int) -> None:
            raise AssertionError

    before = threading.active_count()
    batches = Loader(Noting(), workers=2, ahead=3)(shares(0, [1] * 1000))
    assert next(batches).tokens_BS.shape == (1, 8)
    batches.close()  # type: ignore[attr-defined]
    assert len(read) <= 3 and threading.active_count() == before


def test_without_workers_only_fetching_runs_ahead(folder: Path) -> None:
    done: list[str] = []

    class Noting:
        def batch(self, g: int, n: int) -> Batch:
            done.append(f"read {g}")
            return ShardReader(folder, 8, seed=4).batch(g, n)

        def prefetch(self, g: int, n: int) -> None:
            done.append(f"fetch {g}")

    assert len(list(Loader(Noting(), ahead=2)(shares(0, [1, 1, 1])))) == 3
    assert done == ["fetch 0", "fetch 1", "read 0", "fetch 2", "read 1", "read 2"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_that_cannot_be_read_is_an_error_in_its_turn(folder: Path, workers: int) -> None:
    reader = ShardReader(folder, 8, seed=4)
    batches = Loader(reader, workers)(shares(0, [1, 1]))
    next(batches)
    failing = Loader(reader, workers)(iter([*shares(0, [1]), *shares(-5, [1])]))
    assert next(failing).tokens_BS.shape == (1, 8)
    with pytest.raises(DataError, match="counted from 0"):
        next(failing)


@pytest.mark.parametrize(("rank", "world", "micro"), [(1, 1, None), (-1, 2, None), (0, 0, None), (0, 1, 0)])
def test_a_share_of_nothing_is_refused(rank: int, world: int, micro: int | None) -> None:
    with pytest.raises(ValueError, match="no such share"):
        next(shares(0, [1], rank, world, micro))


@given(
    count=st.integers(1, 2**40), first=st.integers(0, 2**41), n=st.integers(0, 50), stream=st.sampled_from(["", "a"])
)
def test_the_order_is_that_of_its_bijection(count: int, first: int, n: int, stream: str) -> None:
    order = Order(count, 7, stream)
    ordinals = np.arange(first, first + n)
    windows = order(ordinals)
    parts = ["a"] if stream else []
    for ordinal, window in zip(ordinals.tolist(), windows.tolist(), strict=True):
        epoch, place = divmod(ordinal, count)
        assert window == Bijection(count, key("windows", 7, epoch, *parts))(place)
        assert order.ordinal(window, epoch) == ordinal
    assert np.array_equal(order(ordinals[::-1]), windows[::-1])


@pytest.mark.parametrize("count", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_every_window_has_its_turn_in_every_epoch(count: int) -> None:
    order = Order(count, 1)
    for epoch in range(3):
        assert sorted(order(np.arange(epoch * count, (epoch + 1) * count)).tolist()) == list(range(count))


@pytest.mark.parametrize("count", [2**32 - 1, 2**32 + 1, 10**10])
def test_many_windows_are_read_once(count: int) -> None:
    order = Order(count, 1)
    samples = np.concatenate([np.arange(20_000), np.arange(count - 20_000, count)])
    assert len(np.unique(order(samples))) == 40_000


def test_a_source_is_a_stream_of_its_own(tmp_path: Path) -> None:
    documents = write_dataset(tmp_path, TABLES, ["books", "crawl", "books"])
    sizes = [sum(map(sum, table)) for table in TABLES]
    flat = [token for document in documents for token in document]
    books = flat[: sizes[0]] + flat[sizes[0] + sizes[1] :]
    reader = ShardReader(tmp_path, 8, seed=1, source="books")
    assert reader.windows == (len(books) - 1) // 8
    read = {tuple(reader.window(g)[0].tolist()) for g in range(reader.windows)}
    assert read == {tuple(books[i * 8 : i * 8 + 9]) for i in range(reader.windows)}
    with pytest.raises(DataError, match=r"manifest\.json: holds no source 'news', only books, crawl"):
        ShardReader(tmp_path, 8, seed=1, source="news")


def test_a_state_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    write_dataset(tmp_path, TABLES, ["books", "crawl", "books"])
    plain = ShardReader(tmp_path, 8, seed=1)
    books = ShardReader(tmp_path, 8, seed=1, source="books")
    packed = ShardReader(tmp_path, 8, seed=1, packed=True)
    for one, other, message in (
        (books, plain, "the saved state has no 'source'"),
        (plain, books, "the saved state was made with source 'books', not so here"),
        (packed, plain, "the saved state has no 'packing'"),
        (plain, packed, "the saved state was made with packing 1, not so here"),
    ):
        with pytest.raises(DataError, match=rf"manifest\.json: {message}"):
            one.resume(other.state(3))


def alternating(g: I64) -> tuple[I64, I64]:
    """Two of the first stream to one of the second."""
    return (g % 3 == 2).astype(np.int64), np.where(g % 3 == 2, g // 3, g // 3 * 2 + g % 3)


def test_several_datasets_are_read_by_a_plan(tmp_path: Path) -> None:
    for name, first in (("a", "books"), ("b", "crawl")):
        (tmp_path / name).mkdir()
        write_dataset(tmp_path / name, TABLES, [first] * 3)
    streams = open_streams([Dataset(tmp_path / "a"), Dataset(tmp_path / "b")])
    assert list(streams) == ["books", "crawl"]
    layouts = [Windows(stream, 8) for stream in streams.values()]
    orders = [Order(layout.count, 1, name) for name, layout in zip(streams, layouts, strict=True)]
    reader = Reader("mixture", layouts, orders, alternating, {"mixture": "x"})
    numbers, rows = reader.rows_of(0, 6 * layouts[0].count)
    for number, epochs in ((0, 4), (1, 2)):
        assert np.bincount(rows[numbers == number]).tolist() == [epochs] * layouts[number].count
    whole = reader.batch(0, 20)
    assert torch.equal(torch.cat([reader.batch(0, 7).tokens_BS, reader.batch(7, 13).tokens_BS]), whole.tokens_BS)
    assert reader.where(2)[0].shard and reader.resume(reader.state(7)) == 7


def test_two_tokenizers_in_one_mixture_are_refused(tmp_path: Path) -> None:
    for name, tokenizer in (("a", b"{}"), ("b", b"{ }"), ("c", b"{}")):
        (tmp_path / name).mkdir()
        write_dataset(tmp_path / name, TABLES, tokenizer=tokenizer)
    one, other, third = (Dataset(tmp_path / name) for name in "abc")
    with pytest.raises(
        DataError, match=r"b/manifest\.json: made with tokenizer \w{64}, .*a/manifest\.json with \w{64}"
    ):
        open_streams([one, other])
    with pytest.raises(DataError, match=r"c/manifest\.json: source 'crawl' is also in .*a/manifest\.json"):
        open_streams([one, third])
