"""A mixture read from shards: exact shares, the same batches however they are divided, a past that a state knows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_train.data import IGNORE, Batch, DataError, Loader, MixtureReader, ShardReader, open_reader, shares
from dots_train.mixture import MixtureConfig, Segment
from dots_train.untie import Untie
from tests.dots_train.datasets import TABLES, write_dataset

LENGTH = 8
CONFIG = MixtureConfig(
    segments=(
        Segment(until=40 * LENGTH, weights={"zh": 1, "en": 1}, name="stable"),
        Segment(until=100 * LENGTH, weights={"zh": 1, "en": 1, "code": 4}, name="anneal"),
    ),
    caps={"code": 6},
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two datasets: Chinese and English in one, code in the other; tokens from 1, EOS 0."""
    root = tmp_path_factory.mktemp("data")
    for name, tables, sources in (
        ("web", TABLES, ["en", "zh", "zh"]),
        ("code", [[[9, 8, 33], [12, 2]]], ["code"]),
    ):
        (root / name).mkdir()
        write_dataset(root / name, tables, sources)
    return [root / "web", root / "code"]


def reader(folders: list[Path], config: MixtureConfig = CONFIG, seed: int = 3) -> MixtureReader:
    return MixtureReader(folders, config, LENGTH, seed)


def joined(batches: list[Batch]) -> list[torch.Tensor]:
    names = ("tokens_BS", "targets_BS", "position_BS", "document_BS")
    return [torch.cat([getattr(one, name) for one in batches]) for name in names]


def test_shares_are_exact_and_every_window_is_read_equally_often(folders: list[Path]) -> None:
    mixed = reader(folders)
    streams, rows = mixed.rows_of(0, 100)
    names = [mixed.mixture.sources[stream] for stream in streams.tolist()]
    assert Counter(names[:40]) == {"zh": 20, "en": 20}
    assert Counter(names[40:]) == {"zh": 10, "en": 10, "code": 40}
    for source in mixed.mixture.sources:
        read = Counter(row for row, name in zip(rows.tolist(), names, strict=True) if name == source)
        windows = mixed.layouts[mixed.mixture.sources.index(source)].count
        times = [read[window] for window in range(windows)]
        assert sum(times) == sum(read.values()) and max(times) - min(times) <= 1
    # What a sample reads is a window of its source alone.
    alone = ShardReader(folders[1], LENGTH, 3, source="code")
    inputs = {tuple(alone.layout.read(n)[0][:-1].tolist()) for n in range(alone.windows)}
    batch = mixed.batch(0, 100)
    for row, name in enumerate(names):
        if name == "code":
            assert tuple(batch.tokens_BS[row].tolist()) in inputs


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("workers", [0, 4])
def test_ranks_workers_and_batch_sizes_make_no_difference(folders: list[Path], world: int, workers: int) -> None:
    sizes = [7, 16, 1, 24, 24, 28]
    expected = joined([reader(folders).batch(0, 100)])
    g = 0
    ranks = [iter(Loader(reader(folders), workers)(shares(0, sizes, rank, world))) for rank in range(world)]
    for size in sizes:
        parts = [next(ranks[rank]) for rank in range(world) if size * rank // world < size * (rank + 1) // world]
        for mine, theirs in zip(joined(parts), expected, strict=True):
            assert torch.equal(mine, theirs[g : g + size])
        g += size


@settings(max_examples=25)
@given(at=st.integers(0, 99), more=st.integers(1, 30))
def test_resuming_anywhere_is_never_stopping(folders: list[Path], at: int, more: int) -> None:
    state = json.loads(json.dumps(reader(folders).state(at)))
    assert len(json.dumps(state)) < 250
    again = reader(folders)
    for mine, theirs in zip(
        joined([again.batch(again.resume(state), more)]), joined([reader(folders).batch(at, more)]), strict=True
    ):
        assert torch.equal(mine, theirs)


def test_a_mixture_that_changes_on_the_way_keeps_its_past(folders: list[Path]) -> None:
    """At sample 60, in the middle of a segment: what was read stays read, and no window is skipped or read twice."""
    before = reader(folders)
    then = Segment(until=140 * LENGTH, weights={"en": 3, "code": 1}, name="more English")
    changed = CONFIG.changed(60 * LENGTH, [then], caps={})
    after = reader(folders, changed)
    for mine, theirs in zip(joined([after.batch(0, 60)]), joined([before.batch(0, 60)]), strict=True):
        assert torch.equal(mine, theirs)
    assert after.resume(before.state(60)) == 60
    streams, _ = after.rows_of(60, 80)
    assert Counter(after.mixture.sources[s] for s in streams.tolist()) == {"en": 60, "code": 20}
    chosen, ordinals = after.mixture.assign(range(140))
    of_source = [ordinals[chosen == number] for number in range(3)]
    assert all(one.tolist() == list(range(len(one))) for one in of_source)
    with pytest.raises(DataError, match="another mixture"):
        reader(folders, CONFIG.changed(50 * LENGTH, [then], caps={})).resume(before.state(60))


def test_untied_windows_are_masked_and_the_others_untouched(folders: list[Path]) -> None:
    rule = Untie(tags=(501, 502, 503, 504), probability=0.5, chunks=(2, 3), min_chunk=1)
    config = MixtureConfig(CONFIG.segments, CONFIG.caps, rule)
    tied, plain = MixtureReader(folders, config, 32, 3), MixtureReader(folders, CONFIG, 32, 3)
    for mine, theirs in zip(joined([tied.batch(0, 20)]), joined([tied.batch(0, 7), tied.batch(7, 13)]), strict=True):
        assert torch.equal(mine, theirs)
    one, other = tied.batch(0, 20), plain.batch(0, 20)
    tagged = (one.tokens_BS >= 501).any(1)
    assert 3 <= int(tagged.sum()) <= 17
    assert torch.equal(one.tokens_BS[~tagged], other.tokens_BS[~tagged])
    assert torch.equal(one.position_BS[~tagged], other.position_BS[~tagged])
    assert (one.targets_BS[one.tokens_BS >= 501] == IGNORE).all()
    assert not one.document_BS[tagged].any()
    lengths = one.cu_seqlens.diff()
    assert int(lengths.sum()) == one.tokens_BS.numel() and int(lengths.max()) == one.max_length == 32


@pytest.mark.parametrize(
    ("weights", "message"),
    [({"en": 1, "books": 1}, "of source 'books' there is not one window"), ({"code": 1}, "reach their caps")],
)
def test_a_mixture_that_the_data_cannot_fill(folders: list[Path], weights: dict[str, float], message: str) -> None:
    caps = {"code": 1.0} if "code" in weights else {}
    config = MixtureConfig((Segment(until=200 * LENGTH, weights=weights, name="all"),), caps)
    with pytest.raises(DataError, match=message):
        reader(folders, config)


def test_what_does_not_belong_together_is_refused(folders: list[Path], tmp_path: Path) -> None:
    write_dataset(tmp_path, [[[30]]], ["books"], tokenizer=b'{"other": 1}')
    with pytest.raises(DataError, match="made with tokenizer"):
        reader([folders[0], tmp_path])
    with pytest.raises(DataError, match="source 'code' is also in"):
        reader([folders[1], folders[1]])
    with pytest.raises(DataError, match="2 datasets and no mixture"):
        open_reader(folders, LENGTH, 3)
    with pytest.raises(DataError, match="packed rows cannot be mixed"):
        open_reader(folders, LENGTH, 3, mixture=CONFIG, packed=True)
    mixed, alone = reader(folders), ShardReader(folders[0], LENGTH, 3)
    with pytest.raises(DataError, match=r"has no 'mixture'|manifest is"):
        mixed.resume(alone.state(4))
    with pytest.raises(DataError, match="seed is 3 here"):
        mixed.resume(reader(folders, seed=4).state(4))
