"""Which source a sample reads, as a function of its number g: mixtures of sources in closed form.

A mixture is a table of segments of training, in tokens from its start, as the curriculum is:

    segments:
      - {name: stable,   until: 10T, weights: {zh: 1, en: 1, code: 0.4}}
      - {name: anneal-1, until: 11T, weights: {zh: 1, en: 1, code: 2, math: 2}}
    caps: {math: 4}          # at most so many epochs of a source, over the whole run

Each segment's samples are divided among its sources in whole numbers by largest remainder, and read in blocks of
`BLOCK` samples, each in an order of its own (a keyed bijection). `Mixture.assign(g)` says the source of a sample and
how many samples of that source came before it, so every stream of windows is read on without a gap, whatever the
ranks, the batch size and the restarts. Nothing is kept of the length of training.

How many samples of a source lie before a block: the sources stand at the leaves of a Huffman tree of their quotas, and
a node that has m samples gives `round(m * left / whole)` of them to its left branch and the rest to the right. Both
numbers grow or stay when m grows, and they sum to m, so by induction from the root each source's count is monotone,
the counts always sum to the samples read, and at the segment's end they are the exact quotas. A rounding errs by at
most 1/2 and reaches a leaf scaled by the leaf's part of its branch, and up the path to the root the branches of a
Huffman tree grow at least as the Fibonacci numbers do: at a border of blocks no source is ever 1/2 (1 + 1 + 1/2 + 1/3
+ 1/5 + ...) < 1.68 samples from its share of what was read, however many sources there are.

Standard library, NumPy and PyYAML only.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dots_data.tokens.manifest import content_id
from dots_data.tokens.order import Bijection, key
from dots_data.typed_yaml import load
from dots_train.curriculum import parse_tokens
from dots_train.untie import Untie

I64 = npt.NDArray[np.int64]

# The smaller, the more even is every batch, and the cheaper a sample far from the others.
BLOCK = 1024
VERSION = 1  # counts up whenever the same (mixture, seed, g) would mean another source or ordinal


class MixtureError(ValueError):
    """A mixture that cannot be read, or a state of another one; the message names segment and source."""


@dataclass(frozen=True)
class Segment:
    """One row of the table."""

    until: int | str
    """Tokens seen at its end, counted from the start of training."""
    weights: Mapping[str, float]
    """Of tokens, by source: positive numbers in any scale."""
    name: str = "stable"
    planned: int | str | None = None
    """The end that it was begun with, where the mixture was changed before: quotas and order stay those of the plan."""
    caps: Mapping[str, float] | None = None
    """Epochs at most of a source by this segment's end; None takes the mixture's."""

    def __post_init__(self) -> None:
        if self.end <= 0:
            raise ValueError(f"segment {self.name!r}: until must be positive")
        if not self.weights:
            raise ValueError(f"segment {self.name!r}: weights name no source")
        _require_positive(self.weights, f"segment {self.name!r}: weights")
        _require_positive(self.caps or {}, f"segment {self.name!r}: caps")

    @cached_property
    def end(self) -> int:
        return parse_tokens(self.until)

    @cached_property
    def planned_end(self) -> int:
        return self.end if self.planned is None else parse_tokens(self.planned)


@dataclass(frozen=True)
class MixtureConfig:
    """The table, and what a mixture file in jobs/mixtures/ holds."""

    segments: tuple[Segment, ...]
    caps: Mapping[str, float] = field(default_factory=dict)
    """Epochs at most of a source, over the whole run. The first segments take first; a cap of their own leaves more to
    the later ones."""
    untie: Untie | None = None
    """Untie-the-Knots on the windows that are read; see dots_train.untie."""

    def __post_init__(self) -> None:
        if not self.segments:
            raise ValueError("a mixture needs at least one segment")
        _require_positive(self.caps, "caps")
        for before, after in zip(self.segments, self.segments[1:], strict=False):
            if min(after.end, after.planned_end) <= before.end:
                raise ValueError(f"segment {after.name!r} ends at {after.until} tokens, not after the one before it")
        unknown = sorted({source for caps in self._all_caps() for source in caps} - set(self.sources))
        if unknown:
            raise ValueError(f"caps: {unknown[0]!r} is a source of no segment (there are {', '.join(self.sources)})")

    def _all_caps(self) -> Iterable[Mapping[str, float]]:
        yield self.caps
        for segment in self.segments:
            yield segment.caps or {}

    @property
    def sources(self) -> tuple[str, ...]:
        """Every name that a segment has, sorted."""
        return tuple(sorted({source for segment in self.segments for source in segment.weights}))

    def changed(
        self, tokens: int, segments: Iterable[Segment], caps: Mapping[str, float] | None = None
    ) -> MixtureConfig:
        """This mixture up to `tokens`, then others: what a run goes on with that stands at `tokens`.

        The segment that is under way is cut there and keeps its plan, so that the past stays what it was.
        """
        kept: list[Segment] = []
        for segment in self.segments:
            if kept and kept[-1].end >= tokens:
                break
            last = segment.end >= tokens or segment is self.segments[-1]
            cut = replace(segment, until=tokens, planned=segment.planned_end) if last else segment
            kept.append(replace(cut, caps=self.caps if cut.caps is None else cut.caps))
        return replace(self, segments=(*kept, *segments), caps=self.caps if caps is None else caps)


def read(path: str | Path) -> MixtureConfig:
    """The mixture in a YAML file. Raises ConfigError that names the file and the key."""
    return load(MixtureConfig, path)


class SourceSummary(NamedTuple):
    """What becomes of a source over the whole run; numbers are tokens but for `epochs` and `cap`.

    available: in its whole windows. asked: by the weights. given: what is read of it. epochs: how often each of its
    windows is read. why: in words, empty where the source is read once at most and gives what was asked.
    """

    source: str
    available: int
    asked: int
    given: int
    epochs: float
    cap: float | None
    why: str


@dataclass(frozen=True)
class _Branch:
    """A node of the tree of sources; a leaf names its source by place in `Mixture.sources`."""

    quota: int
    source: int
    children: tuple[_Branch, _Branch] | None = None

    def share(self, samples: int, into: list[int]) -> None:
        """Divide `samples` among the leaves."""
        if self.children is None:
            into[self.source] = samples
            return
        left, right = self.children
        taken = (2 * samples * left.quota + self.quota) // (2 * self.quota)
        left.share(taken, into)
        right.share(samples - taken, into)


@dataclass(frozen=True)
class _Part:
    """A segment in samples: [start, stop) of the run; `quotas` are over `planned` samples from `start`.

    `before`: samples of each source that were read before it.
    """

    segment: Segment
    start: int
    stop: int
    planned: int
    quotas: tuple[int, ...]
    before: tuple[int, ...]

    @cached_property
    def tree(self) -> _Branch:
        # Ties are broken by the first source of a branch, in the order of names.
        heap = [(quota, source, _Branch(quota, source)) for source, quota in enumerate(self.quotas) if quota]
        heapq.heapify(heap)
        while len(heap) > 1:
            (a, source_a, left), (b, source_b, right) = heapq.heappop(heap), heapq.heappop(heap)
            first = min(source_a, source_b)
            heapq.heappush(heap, (a + b, first, _Branch(a + b, first, (left, right))))
        return heap[0][2]

    def counts(self, samples: int) -> list[int]:
        """Samples of each source among the first `samples`, a border of blocks."""
        into = [0] * len(self.quotas)
        self.tree.share(samples, into)
        return into


class Mixture:
    """A mixture over data: `windows` says how many samples one epoch of each source has.

    Where a weight asks more of a source than its cap leaves, the excess goes to the other sources of the segment in
    proportion to their weights. Past its end the last segment's shares go on, since the last batch of a curriculum
    may reach over it.

    sources: the names, sorted; `assign` names a source by its place here.
    samples: of the whole mixture. A sample belongs to the segment in which its first token lies.

    Raises:
        MixtureError: a source without data, or a segment whose sources are all capped before its end.
    """

    def __init__(self, config: MixtureConfig, windows: Mapping[str, int], sequence_length: int, seed: int) -> None:
        self.config, self.sequence_length, self.seed = config, sequence_length, seed
        self.sources = config.sources
        for segment in config.segments:
            for source in sorted(segment.weights):
                if windows.get(source, 0) < 1:
                    have = ", ".join(sorted(name for name, count in windows.items() if count > 0)) or "nothing"
                    raise MixtureError(
                        f"segment {segment.name!r}: of source {source!r} there is not one window of {sequence_length} "
                        f"tokens (there is {have})"
                    )
        self.windows = tuple(windows[source] for source in self.sources)
        self._parts: list[_Part] = []
        for segment in config.segments:
            self._parts.append(self._part(segment))
        self.samples = self._parts[-1].stop
        self._stops = np.array([part.stop for part in self._parts], dtype=np.int64)
        self._starts = np.array([part.start for part in self._parts], dtype=np.int64)
        self._planned = np.array([part.planned for part in self._parts], dtype=np.int64)

    def _part(self, segment: Segment) -> _Part:
        start = self._parts[-1].stop if self._parts else 0
        before = self._counts(start)
        planned = _samples(segment.planned_end, self.sequence_length) - start
        if planned < 1:
            raise MixtureError(f"segment {segment.name!r}: is shorter than one window of {self.sequence_length} tokens")
        left = [
            None if cap is None else max(0, cap - had) for cap, had in zip(self._caps(segment), before, strict=True)
        ]
        bounds = [bound for bound, name in zip(left, self.sources, strict=True) if name in segment.weights]
        known = [bound for bound in bounds if bound is not None]
        if len(known) == len(bounds) and sum(known) < planned:
            short = format_tokens(self._tokens(planned - sum(known)))
            raise MixtureError(
                f"segment {segment.name!r}: all its sources ({', '.join(sorted(segment.weights))}) reach their caps, "
                f"{short} tokens before its end; raise a cap, add a source or end the segment earlier"
            )
        quotas = divide(planned, self._weights(segment), left)
        stop = max(start, _samples(segment.end, self.sequence_length))
        return _Part(segment, start, stop, planned, tuple(quotas), tuple(before))

    def _weights(self, segment: Segment) -> list[Fraction]:
        return [_exact(segment.weights.get(source, 0)) for source in self.sources]

    def _caps(self, segment: Segment) -> list[int | None]:
        caps = self.config.caps if segment.caps is None else segment.caps
        return [
            math.floor(_exact(caps[source]) * windows) if source in caps else None
            for source, windows in zip(self.sources, self.windows, strict=True)
        ]

    @property
    def tokens(self) -> int:
        """Tokens of the whole mixture. A longer curriculum should be refused: past this end no cap holds."""
        return self.config.segments[-1].end

    def assign(self, g: int | npt.ArrayLike) -> tuple[I64, I64]:
        """The source that each sample reads (its place in `sources`), and how many samples of it come before.

        g: sample numbers from 0, of any shape and order; the two int64 arrays are of that shape. A block is worked out
        whole and kept for a while, so neighbours are cheap, and one sample costs a block at most, at any length of
        training.
        Raises MixtureError for a negative number.
        """
        samples = np.asarray(g, dtype=np.int64)
        flat = samples.reshape(-1)
        if flat.size and int(flat.min()) < 0:
            raise MixtureError(f"samples are counted from 0, not {int(flat.min())}")
        number, begin = self._blocks_of(flat)
        order = np.argsort(begin, kind="stable")
        borders = np.flatnonzero(np.diff(begin[order])) + 1
        sources, ordinals = np.empty_like(flat), np.empty_like(flat)
        for places in np.split(order, borders) if flat.size else ():
            at = int(begin[places[0]])
            source, ordinal = self._block(self._parts[int(number[places[0]])], at)
            sources[places], ordinals[places] = source[flat[places] - at], ordinal[flat[places] - at]
        return sources.reshape(samples.shape), ordinals.reshape(samples.shape)

    def consumed(self, g: int) -> dict[str, int]:
        """How many samples of each source the samples before g read."""
        return dict(zip(self.sources, self._counts(g), strict=True))

    def past(self, g: int) -> str:
        """32 hexadecimal digits, equal for mixtures that read the same up to sample g: what a state keeps."""
        segments = [
            [part.start, g if part is self._parts[-1] else min(part.stop, g), self._named(part.quotas)]
            for part in self._parts
            if part.start < g
        ]
        return content_id([VERSION, BLOCK, self.sequence_length, self.seed, segments])

    def check_past(self, past: str, g: int) -> None:
        """Refuse a state of sample g that another mixture has read up to. Raises MixtureError."""
        if past != self.past(g):
            read_so_far = ", ".join(
                f"{part.segment.name} to {format_tokens(self._tokens(min(part.stop, g)))}"
                for part in self._parts
                if part.start < g
            )
            raise MixtureError(
                f"mixture: the saved state stands at sample {g} of another mixture ({past}, here {self.past(g)}); here "
                f"the past is {read_so_far}. Take the run's own mixture; to change it from here on, set the segment "
                f"under way to `until: {self._tokens(g)}` and `planned:` to its former end, and add segments after it"
            )

    def summary(self) -> list[SourceSummary]:
        """What each source is asked and gives over the whole run, how often it is repeated, and why."""
        given = self._counts(self.samples)
        caps = self.config.caps
        rows = []
        for source, name in enumerate(self.sources):
            asked = sum((self._asked(part)[source] for part in self._parts), Fraction(0))
            reasons = [reason for part in self._parts if (reason := self._reason(part, source))]
            epochs = given[source] / self.windows[source]
            available = self._tokens(self.windows[source])
            if epochs > 1:
                there = f"{format_tokens(available)} there, {format_tokens(self._tokens(given[source]))} read"
                reasons.insert(0, f"repeated: {there}")
            rows.append(
                SourceSummary(
                    name,
                    available,
                    self._tokens(round(asked)),
                    self._tokens(given[source]),
                    epochs,
                    caps.get(name),
                    "; ".join(reasons),
                )
            )
        return rows

    def shares(self) -> list[tuple[str, str, float, float]]:
        """(segment, source, share asked, share planned) of every segment's tokens."""
        return [
            (part.segment.name, name, float(asked / part.planned), quota / part.planned)
            for part in self._parts
            for name, asked, quota in zip(self.sources, self._asked_of_plan(part), part.quotas, strict=True)
            if name in part.segment.weights
        ]

    def _counts(self, g: int) -> list[int]:
        """Samples of each source among the first g."""
        part = next((part for part in self._parts if g <= part.stop), self._parts[-1] if self._parts else None)
        if part is None or g <= part.start:
            return list(part.before) if part else [0] * len(self.sources)
        begin = int(self._begin(np.array(g - 1 - part.start), np.array(part.planned)))
        counts = np.array(part.counts(begin)) + np.array(part.before)
        source, _ = self._block(part, part.start + begin)
        inside = np.bincount(source[: g - part.start - begin], minlength=len(self.sources))
        return [int(count) for count in counts + inside]

    def _blocks_of(self, flat: I64) -> tuple[I64, I64]:
        """The segment of each sample, and the sample at which its block begins."""
        number = np.searchsorted(self._stops[:-1], flat, side="right").astype(np.int64)
        start = self._starts[number]
        return number, start + self._begin(flat - start, self._planned[number])

    @staticmethod
    def _begin(place: I64, planned: I64) -> I64:
        """Where the block of a place in a segment begins: the last one of the plan ends with it."""
        after = place - planned
        begin: I64 = np.where(after < 0, place // BLOCK * BLOCK, planned + after // BLOCK * BLOCK)
        return begin

    def _block(self, part: _Part, at: int) -> tuple[I64, I64]:
        """The source and the ordinal of each sample of the block that begins at sample `at`."""
        begin = at - part.start
        end = min(begin + BLOCK, part.planned) if begin < part.planned else begin + BLOCK
        first = part.counts(begin)
        inside = tuple(after - before for after, before in zip(part.counts(end), first, strict=True))
        source, rank = _order(key("mixture", self.seed, part.start, begin), inside)
        return source, (np.array(first) + np.array(part.before))[source] + rank

    def _asked_of_plan(self, part: _Part) -> list[Fraction]:
        weights = self._weights(part.segment)
        total = sum(weights)
        return [part.planned * weight / total for weight in weights]

    def _asked(self, part: _Part) -> list[Fraction]:
        """Samples of each source that the weights alone would give, over what is read of the segment."""
        done = Fraction(part.stop - part.start, part.planned)
        return [asked * done for asked in self._asked_of_plan(part)]

    def _reason(self, part: _Part, source: int) -> str:
        """Why a segment gives a source another share than its weight asks; empty where it does not."""
        asked = self._asked_of_plan(part)
        capped = [i for i, quota in enumerate(part.quotas) if asked[i] - quota >= 1]
        difference = format_tokens(self._tokens(abs(round(asked[source] - part.quotas[source]))))
        where = f"{part.segment.name}: {difference} of {format_tokens(self._tokens(round(asked[source])))}"
        if source in capped:
            caps = self.config.caps if part.segment.caps is None else part.segment.caps
            others = ", ".join(n for n in sorted(part.segment.weights) if self.sources.index(n) not in capped)
            return f"{where} asked went to {others}: the cap of {caps[self.sources[source]]:g} epochs was reached"
        if capped and part.quotas[source] - asked[source] >= 1:
            return f"{where} asked came on top, from {', '.join(self.sources[i] for i in capped)} at the cap"
        return ""

    def _named(self, quotas: tuple[int, ...]) -> dict[str, int]:
        return {source: quota for source, quota in zip(self.sources, quotas, strict=True) if quota}

    def _tokens(self, samples: int) -> int:
        return samples * self.sequence_length


def divide(samples: int, weights: list[Fraction], left: list[int | None]) -> list[int]:
    """`samples` in whole numbers in proportion to `weights`, by largest remainder (the first one where two are equal).

    left: what each can give at most, None for no bound. What one cannot give, the others give by their weights.

    Raises:
        MixtureError: all of them together have less.
    """
    full = {i: 0 for i, weight in enumerate(weights) if not weight}
    while True:
        rest = samples - sum(full.values())
        total = sum((weight for i, weight in enumerate(weights) if i not in full), Fraction(0))
        over = {
            i: bound
            for i, bound in enumerate(left)
            if i not in full and bound is not None and rest * weights[i] > bound * total
        }
        if not over:
            break
        full |= over
    if rest and not total:
        raise MixtureError(f"{rest} samples more than all sources can give")
    exact = [Fraction(full[i]) if i in full else rest * weight / total for i, weight in enumerate(weights)]
    whole = [math.floor(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
    for i in by_remainder[: samples - sum(whole)]:
        whole[i] += 1
    return whole


def format_tokens(tokens: int) -> str:
    """`1_500_000_000` -> `1.5B`: three digits and the unit of the curriculum."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if tokens >= size:
            return f"{tokens / size:.3g}{unit}"
    return str(tokens)


@functools.lru_cache(maxsize=256)
def _order(order_key: bytes, counts: tuple[int, ...]) -> tuple[I64, I64]:
    """A block's places in keyed order: the source of each, and how many of that source stand before it."""
    size = sum(counts)
    source = np.repeat(np.arange(len(counts)), counts)[Bijection(size, order_key)(np.arange(size))]
    rank = np.empty(size, dtype=np.int64)
    first = np.cumsum([0, *counts[:-1]])
    rank[np.argsort(source, kind="stable")] = np.arange(size) - np.repeat(first, counts)
    return source, rank


def _samples(tokens: int, sequence_length: int) -> int:
    return -(-tokens // sequence_length)


def _exact(number: float) -> Fraction:
    """As it was written: 0.1 is a tenth."""
    return Fraction(str(number))


def _require_positive(numbers: Mapping[str, float], where: str) -> None:
    for name, number in numbers.items():
        if not (math.isfinite(number) and number > 0):
            raise ValueError(f"{where}: {name}: {number!r} is not a positive number")
