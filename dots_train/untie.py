"""Untie-the-Knots (Tian et al., arXiv 2409.04774): a window's documents cut into chunks and shuffled together.

The report's 32K stage trains on windows whose documents lie in pieces across the whole context, so that the model
learns to find the piece that goes on. Per window, as in the authors' code (rgtjf/Untie-the-Knots):

- the window is split at document borders, and each document into 2 or 3 chunks at random places;
- a chunk that goes on elsewhere ends with a tail tag, the chunk that goes on begins with the matching head tag;
- the chunks of all documents are shuffled, those of one document stay in their order (with two or three chunks and
  this, the paper's ablation is best), and the window's last chunk stays last, since it breaks off at the window's end;
- with `backtrace`, each chunk of a cut document carries a name of random letters, and after the document's last chunk
  the names are to be listed in order;
- the window keeps its length: what the tags take is left out at its end, and never read in that epoch;
- no loss where a tag or a name is input or target; the list of a backtrace is learned. Nor where the window begins
  inside a document and that fragment follows another one, since its true beginning is not there;
- attention goes across the whole window and positions count through it (`document_S` is 0 everywhere, so the model
  masks nothing but the future): with a mask at documents there would be nothing to untie. Windows that are not
  transformed keep document numbers and positions as every other stage has them.

Settings used for dots.llm1 are unknown. Ours: probability 0.8 and 2 or 3 chunks are the paper's best; chunks of at
least 64 tokens, since a chunk should be longer than its tags. Where one document fills the window and the order is
kept, nothing moves: the stage needs documents shorter than its window among the long ones.

Standard library and NumPy only. Everything is a function of (seed, g): draws come from Philox, whose raw stream NumPy
keeps stable (NEP 19).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dots_data.tokens.order import key

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32] | I64

INSERTED = -1


@dataclass(frozen=True)
class Backtrace:
    """Naming the chunks, and listing a document's names after its last chunk.

    marks: ids around a name (two), and before, between and after the names of a list (three).
    letters: ids that names are drawn from, `length` of them each.
    """

    marks: tuple[int, ...]
    letters: tuple[int, ...]
    length: int = 6

    def __post_init__(self) -> None:
        if len(self.marks) != 5 or len(set(self.marks)) != 5:
            raise ValueError(f"marks are five different ids (name, /name, list, next, /list), found {list(self.marks)}")
        if len(set(self.letters)) < 2 or self.length < 1:
            raise ValueError("letters are at least two different ids, and length is at least 1")


@dataclass(frozen=True)
class Untie:
    """How windows are transformed.

    tags: ids that stand at no other place, tail and head of the first cut of a document, then of the second, ...
    probability: of a window to be transformed. chunks: numbers of chunks that a document is cut into, each as often.
    min_chunk: tokens; a document that is too short for its number of chunks stays whole.
    keep_order: a document's chunks keep their order.
    """

    tags: tuple[int, ...]
    probability: float = 0.8
    chunks: tuple[int, ...] = (2, 3)
    min_chunk: int = 64
    keep_order: bool = True
    backtrace: Backtrace | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must be between 0 and 1, found {self.probability}")
        if not self.chunks or min(self.chunks) < 1 or self.min_chunk < 1:
            raise ValueError("chunks are one or more numbers of at least 1, and min_chunk is at least 1")
        if len(self.tags) < 2 * (max(self.chunks) - 1):
            raise ValueError(
                f"tags: {max(self.chunks)} chunks need {2 * (max(self.chunks) - 1)}, found {len(self.tags)}"
            )
        marks = (*self.tags, *(self.backtrace.marks if self.backtrace else ()))
        if len(set(marks)) != len(marks) or min(self.ids, default=0) < 0:
            raise ValueError("tags and marks must be different ids, none of them negative")

    @property
    def ids(self) -> tuple[int, ...]:
        """Every id that may be inserted: all must have a row in the model's embedding."""
        return (*self.tags, *(self.backtrace.marks + self.backtrace.letters if self.backtrace else ()))

    def inserted(self, chunks: int) -> int:
        """How many ids a document of so many chunks is given."""
        if chunks == 1:
            return 0
        named = chunks * (2 * self.backtrace.length + 3) + 1 if self.backtrace else 0
        return 2 * (chunks - 1) + named


class Window(NamedTuple):
    """A sample of S tokens; int64 arrays [S] but for the mask, which is bool.

    loss_mask_S: whether the target counts. position_S, document_S: as in dots_train.data.Batch.
    origin_S: the input's place in the stream that was given, INSERTED for tags and names.
    """

    tokens_S: I64
    targets_S: I64
    loss_mask_S: npt.NDArray[np.bool_]
    position_S: I64
    document_S: I64
    origin_S: I64


class _Chunk(NamedTuple):
    """Tokens [start, stop) of the stream: chunk `number` of the `of` chunks of a document."""

    document: int
    number: int
    of: int
    start: int
    stop: int


def untie(stream: Tokens, starts: I64, rule: Untie, seed: int, g: int) -> Window:
    """Sample g, transformed or not.

    stream: S + 1 tokens, inputs and last target. starts: the places in [0, S) at which a document begins, rising.
    """
    draws = np.random.Philox(key=int.from_bytes(key("untie", seed, g)[:16], "little"))
    if int(draws.random_raw(1)[0]) >= rule.probability * 2**64:
        return plain(stream, starts)
    chunks = _cut(len(stream), starts, rule, draws)
    order = _shuffle(chunks, rule, draws)
    names = _names(len(chunks), rule, draws)
    ids, origin, taught = _tie(stream, chunks, order, names, rule)
    begins = np.zeros(len(stream), dtype=bool)
    begins[starts] = True
    before, after = origin[:-1], origin[1:]
    text = (before != INSERTED) & (after != INSERTED) & ((after == before + 1) | begins[after])
    length = len(stream) - 1
    return Window(ids[:-1], ids[1:], text | taught[1:], np.arange(length), np.zeros(length, dtype=np.int64), before)


def plain(stream: Tokens, starts: I64) -> Window:
    """A sample as it lies in the stream: every target counts, positions and documents begin anew at each start."""
    ids = stream.astype(np.int64)
    length = len(ids) - 1
    borders = np.union1d([0], starts)
    place = np.arange(length)
    document = np.searchsorted(borders, place, side="right") - 1
    return Window(ids[:-1], ids[1:], np.ones(length, dtype=bool), place - borders[document], document, place)


def _cut(room: int, starts: I64, rule: Untie, draws: np.random.Philox) -> list[_Chunk]:
    """The chunks of as many documents as fill `room` with what is inserted; the last one is shortened to fit."""
    borders = [*np.union1d([0], starts).tolist(), room]
    raw: U64 = draws.random_raw((len(borders) - 1) * max(rule.chunks)).reshape(len(borders) - 1, -1)
    chunks: list[_Chunk] = []
    for document, (start, stop) in enumerate(pairwise(borders)):
        length = stop - start
        of = rule.chunks[int(raw[document, 0] % np.uint64(len(rule.chunks)))]
        if min(length, room - rule.inserted(of)) < of * rule.min_chunk:
            of = 1
        length = min(length, room - rule.inserted(of))
        cuts = _cuts(length, of, rule.min_chunk, raw[document, 1:of])
        chunks += (
            _Chunk(document, number, of, start + first, start + last)
            for number, (first, last) in enumerate(pairwise((0, *cuts, length)))
        )
        room -= length + rule.inserted(of)
        if not room:
            break
    return chunks


def _cuts(length: int, of: int, least: int, raw: U64) -> list[int]:
    """`of` - 1 rising places in a document, no two borders nearer than `least`."""
    free = np.sort(raw % np.uint64(max(1, length - of * least + 1))).tolist()
    return [place + least * number for number, place in enumerate(free, 1)]


def _shuffle(chunks: list[_Chunk], rule: Untie, draws: np.random.Philox) -> list[int]:
    """The order in which the chunks are read; the last one stays last."""
    places = np.argsort(draws.random_raw(len(chunks) - 1), kind="stable")
    if rule.keep_order:
        document = np.array([chunk.document for chunk in chunks[:-1]], dtype=np.int64)
        places = places[np.lexsort((places, document))]
    return [*np.argsort(places).tolist(), len(chunks) - 1]


def _names(count: int, rule: Untie, draws: np.random.Philox) -> list[list[int]]:
    if rule.backtrace is None:
        return []
    letters = np.array(rule.backtrace.letters)
    raw = draws.random_raw(count * rule.backtrace.length) % np.uint64(len(letters))
    names: list[list[int]] = letters[raw.astype(np.int64)].reshape(count, -1).tolist()
    return names


def _tie(
    stream: Tokens, chunks: list[_Chunk], order: list[int], names: list[list[int]], rule: Untie
) -> tuple[I64, I64, npt.NDArray[np.bool_]]:
    """The tokens of the window, the place in `stream` of each, and which of the inserted ones are to be learned."""
    last_of = {chunks[index].document: index for index in order}
    ids: list[npt.ArrayLike] = []
    origin: list[I64] = []
    taught: list[npt.NDArray[np.bool_]] = []

    def insert(inserted: list[int], learned: bool = False) -> None:
        """Insert ids, of which all but the first count as targets where `learned`."""
        ids.append(np.array(inserted, dtype=np.int64))
        origin.append(np.full(len(inserted), INSERTED))
        taught.append((np.arange(len(inserted)) > 0) & learned)

    for index in order:
        chunk = chunks[index]
        if chunk.of > 1 and rule.backtrace:
            insert([rule.backtrace.marks[0], *names[index], rule.backtrace.marks[1]])
        if chunk.number > 0:
            insert([rule.tags[2 * chunk.number - 1]])
        ids.append(stream[chunk.start : chunk.stop].astype(np.int64))
        origin.append(np.arange(chunk.start, chunk.stop))
        taught.append(np.zeros(chunk.stop - chunk.start, dtype=bool))
        if chunk.number < chunk.of - 1:
            insert([rule.tags[2 * chunk.number]])
        if chunk.of > 1 and rule.backtrace and index == last_of[chunk.document]:
            insert(_list(chunk, index, names, rule.backtrace), learned=True)
    return np.concatenate(ids), np.concatenate(origin), np.concatenate(taught)


def _list(chunk: _Chunk, index: int, names: list[list[int]], backtrace: Backtrace) -> list[int]:
    """The names of a document's chunks, in the document's order."""
    opened, following, closed = backtrace.marks[2:]
    first = index - chunk.number
    listed = [opened, *names[first]]
    for name in names[first + 1 : first + chunk.of]:
        listed += [following, *name]
    return [*listed, closed]
