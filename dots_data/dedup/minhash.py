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
from dots_data.schema import STANDING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from dots_data.engines.spark import Batches

STAGE, RULE = "fuzzy", "fuzzy.jaccard"

# Places for band keys, for each task of a shuffle; what a place holds must fit a worker's memory several times over.
PLACES_A_TASK = 4
# Entries that a worker holds before it scatters them.
ENTRIES_A_BATCH = 1 << 20

U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]

_NO_SHINGLES = np.empty(0, np.uint64)

BANDS = pa.schema(
    [
        ("doc_id", pa.string()),
        ("dump", pa.string()),
        ("date", pa.string()),
        ("length", pa.int64()),
        *STANDING,
        ("bands", pa.list_(pa.int64())),
    ]
)
# What signing reads of a document.
SIGNED = ("doc_id", "dump", "date", *(field.name for field in STANDING), "text", "language")
PAIR = pa.schema([("loser", pa.string()), ("winner", pa.string())])
SHINGLES = pa.schema([("doc_id", pa.string()), ("shingles", pa.binary())])
ENTRIES = pa.schema([("place", pa.int32()), ("entries", pa.binary())])
MEMBERS = pa.schema([("bucket", pa.int64()), ("document", pa.int64())])
EDGE = pa.schema([("loser", pa.string()), ("winner", pa.string()), ("similarity", pa.float64())])


@dataclass(frozen=True)
class FuzzyConfig:
    """ngram: words a shingle. bands x rows: the MinHash values; both as the report has them.

    threshold: the Jaccard similarity of shingle sets at which a document is dropped.
    seed: of the hash family.
    survivor: which of two near-duplicates stays, by these preferences in turn, ties by id (see survivors.order_key).
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
    shared = int(signature.common(left, right))
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
    """Band keys of every document (columns of BANDS); `documents` has those of SIGNED."""
    from dots_data.engines.spark import map_batches

    def sign_batches(batches: Batches) -> Batches:
        return (_signed(batch, config) for batch in batches)

    return map_batches(documents.select(*SIGNED), sign_batches, BANDS)


def _signed(batch: pa.RecordBatch, config: FuzzyConfig) -> pa.RecordBatch:
    """The columns of BANDS, of a batch of SIGNED."""
    texts = batch.column("text")
    bands = signatures(texts, batch.column("language").to_pylist(), config)
    made = {"length": pc.utf8_length(texts).cast(pa.int64()), "bands": bands}
    return pa.RecordBatch.from_arrays(
        [made[name] if name in made else batch.column(name) for name in BANDS.names], schema=BANDS
    )


def candidate_pairs(signed: DataFrame, config: FuzzyConfig, earlier: DataFrame | None = None) -> DataFrame:
    """Distinct candidate pairs (columns of PAIR) of documents that share a band.

    `signed` and `earlier` have the columns of BANDS. The documents of `earlier`, of earlier dumps, were paired among
    themselves before.

    What is shuffled of a document is 16 bytes a band: the band's key and a hash of the document's id. Should the ids
    of two documents have one hash, each is paired with the neighbours of both, and the comparison tells them apart.
    """
    from pyspark.sql import functions as F

    from dots_data.dedup.survivors import order_column
    from dots_data.engines.spark import group_batches, map_batches, rows_to_batches

    places = PLACES_A_TASK * int(signed.sparkSession.conf.get("spark.sql.shuffle.partitions") or 1)

    def scatter(batches: Batches) -> Batches:
        return scattered(batches, places)

    def pair(batches: Batches) -> Batches:
        for batch in batches:
            rows = (
                {"loser": loser, "winner": winner}
                for members in batch.column("members").to_pylist()
                for loser, winner in bucket_pairs(members, config.bucket_pairs)
            )
            yield from rows_to_batches(rows, PAIR, size=65536)

    def hashed(frame: DataFrame, new: int) -> DataFrame:
        return frame.withColumn("document", F.xxhash64("doc_id").bitwiseAND(F.lit(-2)).bitwiseOR(F.lit(new)))

    everyone = hashed(signed, 1)
    if earlier is not None:
        everyone = everyone.unionByName(hashed(earlier, 0))
    entries = map_batches(everyone.select("document", "bands"), scatter, ENTRIES)
    orders = everyone.select("document", order_column(config.survivor).alias("order"))
    buckets = (
        group_batches(entries, "place", buckets_of, MEMBERS)
        # Near-duplicates share many bands: equal buckets are paired once.
        .distinct()
        .join(orders, "document")
        .groupBy("bucket")
        .agg(F.transform(F.sort_array(F.collect_list("order")), lambda order: order["doc_id"]).alias("members"))
        .select("members")
    )
    pairs = map_batches(buckets, pair, PAIR).distinct()
    # Earlier dumps come first in any order: a new document never wins against one of them.
    return pairs if earlier is None else pairs.join(signed.selectExpr("doc_id AS loser"), "loser", "left_semi")


def scattered(batches: Batches, places: int) -> Batches:
    """The entries (key of a band, document) of `document, bands`, those of one key in one place; rows of ENTRIES."""
    held: list[NDArray[np.int64]] = []
    for batch in batches:
        bands = batch.column("bands")
        document = np.repeat(batch.column("document").to_numpy(), pc.list_value_length(bands).to_numpy())
        held.append(np.stack((bands.flatten().to_numpy(), document), axis=1))
        if sum(map(len, held)) >= ENTRIES_A_BATCH:
            yield _by_place(np.concatenate(held), places)
            held = []
    if held:
        yield _by_place(np.concatenate(held), places)


def _by_place(entries: NDArray[np.int64], places: int) -> pa.RecordBatch:
    place = (entries[:, 0].view(np.uint64) >> np.uint64(32)) % np.uint64(places)
    # Numbers of 16 bits are sorted in linear time.
    order = np.argsort(place.astype(np.min_scalar_type(places)), kind="stable")
    sizes = np.bincount(place.astype(np.int64), minlength=places)
    filled = np.flatnonzero(sizes).astype(np.int32)
    packed = _binary_array(entries[order].ravel(), 2 * sizes[filled])
    return pa.RecordBatch.from_arrays([pa.array(filled), packed], schema=ENTRIES)


def buckets_of(table: pa.Table) -> pa.Table:
    """The buckets of a place that hold a new document and another one; rows of MEMBERS, equal buckets once.

    A bucket is named by the sum of a hash of each of its documents.
    """
    chunks = [np.frombuffer(entry.as_buffer(), np.int64) for entry in table.column("entries")]
    entries = np.concatenate(chunks).reshape(-1, 2)
    order = np.argsort(entries[:, 0])
    keys = entries[order, 0]
    equal = keys[1:] == keys[:-1]
    meets = np.concatenate((equal, [False])) | np.concatenate(([False], equal))
    keys, documents = keys[meets], entries[order[meets], 1]
    starts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))[: len(keys)])
    sizes = np.diff(starts, append=len(keys))
    if len(starts):
        names = np.add.reduceat(signature.mixed(documents), starts)
        _, firsts = np.unique(names, return_index=True)
        new = np.bitwise_or.reduceat(documents & 1, starts)
        wanted = np.zeros(len(starts), np.bool_)
        wanted[firsts] = new[firsts]
        documents, names = documents[np.repeat(wanted, sizes)], np.repeat(names[wanted], sizes[wanted])
    else:
        names = documents
    return pa.table([names.view(np.int64), documents], schema=MEMBERS)


def verify_pairs(pairs: DataFrame, documents: DataFrame, config: FuzzyConfig) -> DataFrame:
    """The pairs whose true Jaccard similarity reaches the threshold (columns of EDGE)."""
    from pyspark.sql import functions as F

    from dots_data.engines.spark import map_batches

    def shingle(batches: Batches) -> Batches:
        for batch in batches:
            texts, languages = (batch.column(name).to_pylist() for name in ("text", "language"))
            sets = [shingles(*row, config.ngram) for row in zip(texts, languages, strict=True)]
            packed = _binary_array(np.concatenate([_NO_SHINGLES, *sets]), np.array(list(map(len, sets))))
            yield pa.RecordBatch.from_arrays([batch.column("doc_id"), packed], schema=SHINGLES)

    def compare(batches: Batches) -> Batches:
        return (near_enough(batch, config.threshold) for batch in batches)

    wanted = pairs.select(F.explode(F.array("loser", "winner")).alias("doc_id")).distinct()
    texts = documents.select("doc_id", "text", "language").join(wanted, "doc_id", "left_semi")
    sets = map_batches(texts, shingle, SHINGLES).persist()
    ends = [
        sets.select(F.col("doc_id").alias(end), F.col("shingles").alias(f"{end}_shingles"))
        for end in ("loser", "winner")
    ]
    return map_batches(pairs.join(ends[0], "loser").join(ends[1], "winner"), compare, EDGE)


def near_enough(batch: pa.RecordBatch, threshold: float) -> pa.RecordBatch:
    """The columns of EDGE, of those pairs of a batch that are near enough."""
    sets = [
        np.frombuffer(entry.as_buffer(), np.uint64)
        for name in ("loser_shingles", "winner_shingles")
        for entry in batch.column(name)
    ]
    similarity = np.array([jaccard(*pair) for pair in zip(sets[: len(batch)], sets[len(batch) :], strict=True)])
    near = batch.select(["loser", "winner"]).add_column(2, EDGE.field("similarity"), pa.array(similarity, pa.float64()))
    return near.filter(pa.array(similarity >= threshold, pa.bool_()))


def _binary_array(values: NDArray[Any], sizes: NDArray[np.int64]) -> pa.Array:
    """The bytes of `values` cut into one binary value for each of `sizes`, which count values."""
    ends = np.concatenate(([0], np.cumsum(sizes * values.itemsize)))
    if ends[-1] >= 1 << 31:
        raise ValueError(f"{ends[-1]} bytes are more than a binary array holds")
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.binary(), len(sizes), buffers)


def find_near_duplicates(texts: Sequence[tuple[str, str]], config: FuzzyConfig) -> dict[str, tuple[str, float]]:
    """The same algorithm on one machine, over (id, English text): the reference for the Spark path."""
    from dots_data.dedup.survivors import choose

    sets = {doc_id: shingles(text, "en", config.ngram) for doc_id, text in texts}
    alike = {"dump": "", "date": "", "site_rank": 0, "quality": 0.0}
    ordered = [
        doc_id
        for doc_id, text in sorted(
            texts, key=lambda pair: order_key(config.survivor, {**alike, "doc_id": pair[0], "length": len(pair[1])})
        )
    ]
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
