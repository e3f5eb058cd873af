"""What `dots shards stats` says is what is there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dots_data import cli
from dots_data.tokens import manifest
from dots_data.tokens.statistics import _longest_of, _step, measure

from .test_export import documents
from .test_shards import some_rows, write_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path, [[some_rows(1, 20), some_rows(2, 3)], [[*some_rows(3, 7), list(range(1, 700))]]])
    return tmp_path


def test_counts(folder: Path) -> None:
    rows = [tokens for one in documents(folder).values() for _, tokens in one]
    found, dataset = measure(folder), manifest.read(folder)
    lengths = sorted(map(len, rows))
    assert (found.shortest, found.longest, int(found.lengths.sum())) == (lengths[0], lengths[-1], len(rows))
    counted = Counter(token for tokens in rows for token in tokens)
    assert {i: n for i, n in enumerate(found.frequencies.tolist()) if n} == dict(counted)
    assert found.quantile(0.5) == lengths[-(-len(lengths) // 2) - 1] and found.quantile(1) == lengths[-1]
    assert sum(count for _, _, count in found.octaves()) == len(rows)
    low, high, count = found.octaves()[-1]
    assert (low, high, count) == (512, 1023, 1)
    assert found.languages.keys() == {"en", "zh"}
    assert sum(tokens for _, tokens in found.languages.values()) == dataset.tokens
    assert found.languages["en"][0] == 12 + 4


@given(st.lists(st.integers(1, 1 << 56), min_size=1, max_size=50))
def test_a_step_holds_what_differs_by_less_than_a_64th(lengths: list[int]) -> None:
    steps = _step(np.array(lengths, np.int64)).tolist()
    for length, step in zip(lengths, steps, strict=True):
        assert _longest_of(step - 1) < length <= _longest_of(step) <= length * (1 + 1 / 64)
        assert length >= 128 or _longest_of(step) == length


def test_one_screen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["shards", "stats", str(folder)]) == 0
    said = capsys.readouterr().out
    for word in (manifest.read(folder).id, "books", "crawl", "zh", "512 to 1,023", "most frequent tokens", "quantiles"):
        assert word in said
    assert len(said.splitlines()) < 45
