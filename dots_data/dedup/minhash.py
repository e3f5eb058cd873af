"""Fuzzy deduplication: MinHash bands find candidates, true Jaccard similarity decides (Appendix C.2).

The report's configuration: the normalised text, words (segmented for Chinese), 5-grams, 2,048 MinHash values
in 128 bands of 16 rows, so that a pair with Jaccard similarity .8 shares a band with probability
1 - (1 - .8^16)^128 = .974. The hash family is datasketch's "affine32" (a*x + b mod 2^32 after MurmurHash3's
finaliser), and equal to it bit for bit under the same constants.

The report deletes on any band collision. Here a collision only names a candidate: a document is dropped when its
shingle set, compared in full, is near enough to that of a document that is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dots_data.dedup import signature
from dots_data.dedup.signature import shingles
from dots_data.dedup.survivors import Preference, order_key

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from dots_data.engines.spark import Batches

STAGE, RULE = "fuzzy", "fuzzy.jaccard"

U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

BANDS = pa.schema(
    [
        ("doc_id", pa.string()),
        ("dump", pa.string()),
        ("date", pa.string()),
        ("length", pa.int64()),
        ("bands", pa.list_(pa.int64())),
    ]
)
PAIR = pa.schema([("loser", pa.string()), ("winner", pa.string())])
SHINGLES = pa.schema([("doc_id", pa.string()), ("shingles", pa.binary())])
EDGE = pa.schema([("loser", pa.string()), ("winner", pa.string()), ("similarity", pa.float64())])


@dataclass(frozen=True)
class FuzzyConfig:
    """ngram: words a shingle. bands x rows: the MinHash values; both as the report has them.

    threshold: the Jaccard similarity of shingle sets at which a document is dropped.
    seed: of the hash family.
    survivor: which of two near-duplicates stays, by these preferences in turn, ties by id.
    bucket_pairs: in a band bucket of up to so many documents all pairs are candidates; in a larger one every
        document is compared with the first so many in survivor order, so that the work stays linear.
    compare_dropped: compare the documents that the rules dropped as well, so that `dots judge` knows the
        near-duplicates of any other thresholds of the rules. No document's fate depends on it.
    """

    ngram: int = 5
    bands: int = 128
    rows: int = 16
    threshold: float = 0.8
    seed: int = 1
    survivor: tuple[Preference, ...] = ("longest", "earliest")
    bucket_pairs: int = 32
    compare_dropped: bool = False

    def __post_init__(self) -> None:
        if min(self.ngram, self.bands, self.rows, self.bucket_pairs) < 1:
            raise ValueError("ngram, bands, rows and bucket_pairs must be at least 1")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is a Jaccard similarity in (0, 1], not {self.threshold}")


@cache
def permutations(count: int, seed: int) -> tuple[U32, U32]:
    """The constants a (odd) and b of `count` hash functions, [count] each."""
    random = np.random.RandomState(seed)
    a, b = random.randint(0, 2**32, size=(2, count), dtype=np.uint32)
    return a | np.uint32(1), b


def minhash(shingle_hashes: U64, count: int, seed: int) -> U32:
    """The MinHash values [count] of a set of 64-bit shingle hashes (their low 32 bits)."""
    return signature.minima(shingle_hashes, *permutations(count, seed))


def band_keys(values: U32, bands: int) -> list[int]:
    """One signed 64-bit key a band; the band's number is hashed in, so that keys of two bands never meet."""
    keys: list[int] = signature.band_keys(values, bands).tolist()
    return keys


def signatures(texts: pa.Array, languages: Sequence[str], config: FuzzyConfig) -> pa.ListArray:
    """The band keys of each text, `config.bands` of them; none for a text without words."""
    constants = permutations(config.bands * config.rows, config.seed)
    return signature.sign(texts, languages, config.ngram, config.bands, *constants)


def jaccard(left: U64, right: U64) -> float:
    """Similarity of two sorted sets; 0 for two empty ones."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    union = len(left) + len(right) - shared
    return shared / union if union else 0.0


def bucket_pairs(members: Sequence[str], limit: int) -> Iterator[tuple[str, str]]:
    """Candidates (loser, winner) of one band bucket whose `members` stand in survivor order."""
    if len(members) <= limit:
        yield from ((loser, winner) for winner, loser in combinations(members, 2))
        return
    for position, loser in enumerate(members):
        for winner in members[: min(position, limit)]:
            yield loser, winner


def sign(documents: DataFrame, config: FuzzyConfig) -> DataFrame:
    """Band keys of every document (columns of BANDS); `documents` has `doc_id, dump, date, text, language`."""
    from dots_data.engines.spark import map_batches

    def sign_batches(batches: Batches) -> Batches:
        return (_signed(batch, config) for batch in batches)

    return map_batches(documents.select("doc_id", "dump", "date", "text", "language"), sign_batches, BANDS)


def _signed(batch: pa.RecordBatch, config: FuzzyConfig) -> pa.RecordBatch:
    """The columns of BANDS, of a batch of `doc_id, dump, date, text, language`."""
    texts = batch.column("text")
    bands = signatures(texts, batch.column("language").to_pylist(), config)
    facts = [batch.column(name) for name in ("doc_id", "dump", "date")]
    return pa.RecordBatch.from_arrays([*facts, pc.utf8_length(texts).cast(pa.int64()), bands], schema=BANDS)


def candidate_pairs(signed: DataFrame, config: FuzzyConfig, earlier: DataFrame | None = None) -> DataFrame:
    """Distinct candidate pairs (columns of PAIR) of documents that share a band.

    `signed` and `earlier` have the columns of BANDS. The documents of `earlier`, of earlier dumps, were paired among
    themselves before.
    """
    from pyspark.sql import functions as F

    from dots_data.dedup.survivors import order_column
    from dots_data.engines.spark import map_batches, rows_to_batches

    def pair(batches: Batches) -> Batches:
        for batch in batches:
            rows = (
                {"loser": loser, "winner": winner}
                for members in batch.column("members").to_pylist()
                for loser, winner in bucket_pairs(members, config.bucket_pairs)
            )
            yield from rows_to_batches(rows, PAIR, size=65536)

    def bands(frame: DataFrame) -> DataFrame:
        return frame.select(order_column(config.survivor).alias("order"), F.explode("bands").alias("band"))

    exploded = bands(signed)
    if earlier is not None:
        met = bands(earlier).join(exploded.select("band").distinct(), "band", "left_semi")
        exploded = exploded.unionByName(met)
    shared = exploded.groupBy("band").count().where("count > 1").select("band")
    # Most band keys stand alone; they are gone before any list is made.
    buckets = (
        exploded.join(shared, "band", "left_semi")
        .groupBy("band")
        .agg(F.transform(F.sort_array(F.collect_list("order")), lambda order: order["doc_id"]).alias("members"))
        # Near-duplicates share many bands: equal buckets are paired once.
        .select("members")
        .distinct()
    )
    pairs = map_batches(buckets, pair, PAIR).distinct()
    # Earlier dumps come first in any order: a new document never wins against one of them.
    return pairs if earlier is None else pairs.join(signed.selectExpr("doc_id AS loser"), "loser", "left_semi")


def verify_pairs(pairs: DataFrame, documents: DataFrame, config: FuzzyConfig) -> DataFrame:
    """The pairs whose true Jaccard similarity reaches the threshold (columns of EDGE)."""
    from pyspark.sql import functions as F

    from dots_data.engines.spark import map_batches, rows_to_batches

    def shingle(batches: Batches) -> Batches:
        for batch in batches:
            rows = (
                {
                    "doc_id": row["doc_id"],
                    "shingles": shingles(row["text"], row["language"], config.ngram).tobytes(),
                }
                for row in batch.to_pylist()
            )
            yield from rows_to_batches(rows, SHINGLES)

    def compare(batches: Batches) -> Batches:
        for batch in batches:
            yield from rows_to_batches(_near(batch, config.threshold), EDGE, size=4096)

    wanted = pairs.select(F.explode(F.array("loser", "winner")).alias("doc_id")).distinct()
    texts = documents.select("doc_id", "text", "language").join(wanted, "doc_id", "left_semi")
    sets = map_batches(texts, shingle, SHINGLES).persist()
    ends = [
        sets.select(F.col("doc_id").alias(end), F.col("shingles").alias(f"{end}_shingles"))
        for end in ("loser", "winner")
    ]
    return map_batches(pairs.join(ends[0], "loser").join(ends[1], "winner"), compare, EDGE)


def _near(batch: pa.RecordBatch, threshold: float) -> Iterator[dict[str, Any]]:
    columns = [batch.column(name).to_pylist() for name in ("loser", "winner", "loser_shingles", "winner_shingles")]
    for loser, winner, left, right in zip(*columns, strict=True):
        similarity = jaccard(np.frombuffer(left, np.uint64), np.frombuffer(right, np.uint64))
        if similarity >= threshold:
            yield {"loser": loser, "winner": winner, "similarity": similarity}


def find_near_duplicates(texts: Sequence[tuple[str, str]], config: FuzzyConfig) -> dict[str, tuple[str, float]]:
    """The same algorithm on one machine, over (id, English text): the reference for the Spark path."""
    from dots_data.dedup.survivors import choose

    sets = {doc_id: shingles(text, "en", config.ngram) for doc_id, text in texts}
    ordered = [i for i, text in sorted(texts, key=lambda pair: order_key(config.survivor, pair[0], "", len(pair[1])))]
    buckets: dict[int, list[str]] = {}
    for doc_id in ordered:
        signature = minhash(sets[doc_id], config.bands * config.rows, config.seed)
        for key in band_keys(signature, config.bands) if len(sets[doc_id]) else []:
            buckets.setdefault(key, []).append(doc_id)
    edges: dict[str, dict[str, float]] = {}
    for members in buckets.values():
        for loser, winner in bucket_pairs(members, config.bucket_pairs):
            similarity = jaccard(sets[loser], sets[winner])
            if similarity >= config.threshold:
                edges.setdefault(loser, {})[winner] = similarity
    return choose(edges)
