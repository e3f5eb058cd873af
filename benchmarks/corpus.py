"""A large corpus for the benchmarks, made of real texts: English documents as long as web pages, some of them
near-copies of others.

Everything is drawn from a seeded generator, document by document, so that the first documents of a large corpus are
those of a small one.

    length      a document is 2 to 40 passages of 60 to 120 words, 3.4 in the middle of a lognormal distribution
    passages    cut at the ends of lines from the texts of one source; unrelated documents share one now and then, as
                pages share a quotation
    copies      three documents in ten are a near-copy of an earlier one, which has copies already as often as not, so
                that families of two are many and families of hundreds are few; words are changed at a rate of up to
                5%, and of every third copy a passage is added or taken away as well
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

PASSAGE = (60, 120)
MEDIAN, SIGMA, MOST = 3.4, 0.75, 40
COPIES, RATE = 0.3, 0.05
# Documents of a file, the unit in which a corpus grows.
FILE = 12_500

DOCUMENT = pa.schema([(name, pa.string()) for name in ("doc_id", "dump", "date", "language", "text")])


class Document(NamedTuple):
    """One document; `original` is the number of the document that it is a copy of, -1 where it is none."""

    original: int
    passages: tuple[str, ...]


def passages(texts: Iterable[str]) -> list[str]:
    """The texts in pieces of PASSAGE words, divided behind a line where one ends in reach; what is left over is no
    piece."""
    least, most = PASSAGE
    found = []
    for text in texts:
        held: list[str] = []
        size = 0
        for line in text.splitlines():
            words = line.split()
            while size + len(words) > most:
                room = most - size
                found.append("\n".join([*held, " ".join(words[:room])]).strip())
                words, held, size = words[room:], [], 0
            held.append(" ".join(words))
            size += len(words)
            if size >= least:
                found.append("\n".join(held).strip())
                held, size = [], 0
    return found


def documents(sources: list[list[str]], count: int, seed: int = 1) -> Iterator[Document]:
    """`count` documents, made of the passages of each source."""
    rng = random.Random(seed)
    weights = [len(source) for source in sources]
    words = sorted({word for source in sources for passage in source[:200] for word in passage.split()})
    made: list[Document] = []
    for number in range(count):
        if number and rng.random() < COPIES:
            original = rng.randrange(number)
            original = made[original].original if made[original].original >= 0 else original
            one = Document(original, _copied(made[original].passages, sources, words, rng))
        else:
            (source,) = rng.choices(sources, weights)
            size = min(MOST, max(2, round(MEDIAN * rng.lognormvariate(0, SIGMA))))
            one = Document(-1, tuple(rng.choice(source) for _ in range(size)))
        made.append(one)
        yield one


def _copied(whole: tuple[str, ...], sources: list[list[str]], words: list[str], rng: random.Random) -> tuple[str, ...]:
    """The passages of a near-copy."""
    copied = list(whole)
    if rng.random() < 1 / 3:
        if rng.random() < 0.5 and len(copied) > 2:
            del copied[rng.choice((0, -1))]
        else:
            copied.insert(rng.choice((0, len(copied))), rng.choice(rng.choice(sources)))
    rate = rng.uniform(0, RATE)
    changed = [_edited(passage, rate, words, rng) for passage in copied]
    # Equal texts would have been removed before, as copies of one another.
    changed[0] = f"{rng.choice(words)} {changed[0]}"
    return tuple(changed)


def _edited(passage: str, rate: float, words: list[str], rng: random.Random) -> str:
    """The passage with a word in 1 / rate replaced, taken out or put in."""
    parts = passage.split(" ")
    for place in range(len(parts) - 1, -1, -1):
        if rng.random() < rate:
            new = [rng.choice(words)]
            parts[place : place + 1] = rng.choice((new, new, [], [parts[place], *new]))
    return " ".join(parts)


def write(sources: list[list[str]], count: int, folder: Path, seed: int = 1) -> None:
    """The corpus as `folder`/part-NNN.parquet and, for tools that read no Parquet, part-NNN.jsonl; FILE documents in
    each, with ids that tell nothing of the order."""
    folder.mkdir(parents=True, exist_ok=True)
    scatter = random.Random(seed + 1)
    made = documents(sources, count, seed)
    for start in range(0, count, FILE):
        rows = []
        for one in islice(made, FILE):
            doc_id = f"{scatter.getrandbits(128):032x}"
            rows.append({"doc_id": doc_id, "dump": "", "date": "", "language": "en", "text": "\n".join(one.passages)})
        name = f"part-{start // FILE:03d}"
        pq.write_table(pa.Table.from_pylist(rows, DOCUMENT), folder / f"{name}.parquet", compression="zstd")
        with open(folder / f"{name}.jsonl", "w", encoding="utf-8") as lines:
            for row in rows:
                lines.write(json.dumps({"id": row["doc_id"], "text": row["text"]}, ensure_ascii=False) + "\n")
