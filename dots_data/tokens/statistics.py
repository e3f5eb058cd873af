"""What a dataset holds, counted over every token: one pass, a record batch in memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dots_data import console
from dots_data.tokens import manifest as manifests
from dots_data.tokens.manifest import Manifest, Shard
from dots_data.tokens.reading import origins, stretches
from dots_data.tokens.shards import ShardError, decoder

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
FREQUENT, LANGUAGES = 10, 15
# Lengths are counted in steps of a 64th of a power of two: quantiles are right to 1.6%, those below 128 exactly.
_STEPS = 64


@dataclass
class Statistics:
    """Counts of a dataset.

    lengths: documents by step of their length (`_step`), int64. frequencies: how often each token id stands, int64
    [vocabulary]. languages: documents and tokens of each, "" where the provenance names none.
    """

    dataset: Manifest
    lengths: npt.NDArray[np.int64]
    frequencies: npt.NDArray[np.int64]
    shortest: int = 0
    longest: int = 0
    languages: dict[str, tuple[int, int]] = field(default_factory=dict)

    def quantile(self, share: float) -> int:
        """The length that this share of the documents does not exceed, to a step."""
        at = int(np.searchsorted(np.cumsum(self.lengths), share * self.lengths.sum()))
        return min(self.longest, max(self.shortest, _longest_of(at)))

    def octaves(self) -> list[tuple[int, int, int]]:
        """Documents by powers of two: (shortest, longest, documents)."""
        tops = np.array([_longest_of(step) for step in range(len(self.lengths))])
        found = Counter[int]()
        for top, count in zip(tops.tolist(), self.lengths.tolist(), strict=True):
            found[top.bit_length()] += count
        held = [bits for bits, count in found.items() if count]
        return (
            [(1 << bits - 1, (1 << bits) - 1, found[bits]) for bits in range(min(held), max(held) + 1)] if held else []
        )


def measure(folder: str | Path) -> Statistics:
    """Read a dataset from front to end.

    Raises:
        ManifestError: no manifest. ShardError: a shard or its provenance cannot be read, or an id is over the
            vocabulary.
    """
    dataset = manifests.read(folder)
    root = manifests.manifest_path(folder).parent
    found = Statistics(dataset, np.zeros(_STEPS * 64, np.int64), np.zeros(dataset.tokenizer.vocab_size, np.int64))
    languages: dict[str, list[int]] = {}
    shortest: list[int] = []
    for shard in dataset.shards:
        for one in stretches(root, shard):
            lengths = one.lengths
            found.lengths += np.bincount(_step(lengths), minlength=len(found.lengths))
            found.longest = max(found.longest, int(lengths.max()))
            shortest.append(int(lengths.min()))
            counts = np.bincount(one.values, minlength=len(found.frequencies))
            if len(counts) > len(found.frequencies):
                raise ShardError(f"{root / shard.file}: token id {len(counts) - 1} is over the vocabulary")
            found.frequencies += counts
        _count_languages(root, shard, languages)
    found.shortest = min(shortest, default=0)
    found.languages = {name: (rows, tokens) for name, (rows, tokens) in languages.items()}
    return found


def _count_languages(root: Path, shard: Shard, languages: dict[str, list[int]]) -> None:
    for batch in origins(root, shard, ["language", "tokens"]):
        counted = (
            pa.Table.from_batches([batch]).group_by("language").aggregate([("tokens", "count"), ("tokens", "sum")])
        )
        for row in counted.to_pylist():
            held = languages.setdefault(row["language"] or "", [0, 0])
            held[0] += row["tokens_count"]
            held[1] += row["tokens_sum"]


def _step(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The step of each length: itself below 128, then 64 steps to each power of two."""
    powers = np.maximum(np.frexp(lengths.astype(np.float64))[1] - 7, 0)
    steps: npt.NDArray[np.int64] = powers * _STEPS + (lengths >> powers)
    return steps


def _longest_of(step: int) -> int:
    """The longest length of a step."""
    power = max(step // _STEPS - 1, 0)
    return ((step - power * _STEPS + 1) << power) - 1


def show(found: Statistics, root: Path) -> None:
    """Print one screen."""
    dataset, out = found.dataset, console.console
    size = sum(shard.bytes for shard in dataset.shards)
    beside = sum(shard.provenance.bytes for shard in dataset.shards)
    batches = sum(len(shard.batches) for shard in dataset.shards)
    out.print(f"[bold]dataset {dataset.id}[/]  {console.safe(root)}")
    out.print(
        f"  {dataset.documents:,} documents, {dataset.tokens:,} tokens ({dataset.dtype}); {len(dataset.shards):,} "
        f"shards, {batches:,} batches, {size:,} bytes and {beside:,} of provenance"
    )
    info = dataset.tokenizer
    used = int(np.count_nonzero(found.frequencies))
    out.print(
        f"  tokenizer {info.sha256[:16]}: {info.vocab_size:,} ids, {used:,} of them used; documents end with "
        f"{console.safe(info.eos)} ({info.eos_id})"
    )
    if not dataset.tokens:
        return
    _show_parts("sources", {one.name: (one.rows, one.tokens) for one in dataset.sources}, dataset.tokens)
    _show_parts("languages", found.languages, dataset.tokens)
    mean = dataset.tokens / dataset.documents
    quantiles = "  ".join(f"{share:.0%} {found.quantile(share):,}" for share in QUANTILES)
    out.print(f"tokens a document: {found.shortest:,} to {found.longest:,}, mean {mean:,.1f}; quantiles: {quantiles}")
    octaves = found.octaves()
    most = max(count for _, _, count in octaves)
    rows = [(f"{low:,} to {high:,}", "█" * round(30 * count / most), count) for low, high, count in octaves]
    console.table("", ("tokens", "", "documents"), rows, left=2)
    _show_frequent(found, root)


def _show_parts(title: str, parts: dict[str, tuple[int, int]], tokens: int) -> None:
    ordered = sorted(parts.items(), key=lambda part: (-part[1][1], part[0]))
    rows: list[tuple[Any, ...]] = [
        (name or "unknown", held[0], held[1], f"{held[1] / tokens:.1%}") for name, held in ordered[:LANGUAGES]
    ]
    rest = ordered[LANGUAGES:]
    if rest:
        held = [sum(one[i] for _, one in rest) for i in (0, 1)]
        rows.append((f"{len(rest)} others", *held, f"{held[1] / tokens:.1%}"))
    console.table(title, (title[:-1], "documents", "tokens", "share"), rows)


def _show_frequent(found: Statistics, root: Path) -> None:
    counts = found.frequencies
    order = np.lexsort((np.arange(len(counts)), -counts))
    decode = decoder(root / found.dataset.tokenizer.file)
    total = int(counts.sum())
    frequent = [
        f"{console.safe(repr(decode([int(i)])) if decode else int(i))} {counts[i] / total:.1%}"
        for i in order[:FREQUENT]
        if counts[i]
    ]
    console.console.print("most frequent tokens: " + "  ".join(frequent))
    shares = (
        f"{top:,}: {counts[order[:top]].sum() / total:.1%}" for top in (10, 100, 1000, 10_000) if top < len(counts)
    )
    console.console.print("share of the most frequent  " + "  ".join(shares))
