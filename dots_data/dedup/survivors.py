"""Who stays: one order for every duplicate, and survivor choice among verified near-duplicates.

The report keeps "one at random" (Appendix C.1); here it is a rule of the recipe with ties broken by content, so
that the result is the same for any partitioning and any run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, reduce
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dots_data.dedup import components

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from dots_data.engines.spark import Batches, Checkpoint

I64 = NDArray[np.int64]

Preference = Literal["curated", "quality", "longest", "shortest", "earliest", "latest"]

# What an order looks at: columns of every table whose documents are put into one.
ORDERED_BY = ("doc_id", "dump", "date", "length", "site_rank", "quality")

# Rounds settle what is many and shallow; what is deep is settled by component.
SPARK_ROUNDS = 8
CIRCLE = "near-duplicates cannot be settled: each of them comes after another"

_LOSER = pa.schema([("loser", pa.int64())])


def order_key(preferences: Sequence[Preference], document: Mapping[str, Any]) -> tuple[float | str, ...]:
    """The sort key of a document (the columns ORDERED_BY): the smaller key survives.

    curated: the higher rank that the site rules give its site. quality: the larger share of its text in whole
    sentences. earliest, latest: a page without a date is taken as later than any dated one, and as earlier.

    The first word is the dump: what an earlier dump kept, a later one does not take away. The last word is always the
    id, which is content.
    """
    date, length = document["date"], document["length"]
    keys: dict[str, float | str] = {
        "curated": -document["site_rank"],
        "quality": -document["quality"],
        "longest": -length,
        "shortest": length,
        "earliest": date or "9999",
        "latest": _reversed_digits(date),
    }
    return (document["dump"], *(keys[preference] for preference in preferences), document["doc_id"])


def order_column(preferences: tuple[Preference, ...], *ties: str) -> Column:
    """`order_key` as a Spark struct over the columns ORDERED_BY, then the columns `ties`."""
    from pyspark.sql import functions as F

    dated = F.col("date") != ""
    keys = {
        "curated": -F.col("site_rank"),
        "quality": -F.col("quality"),
        "longest": -F.col("length"),
        "shortest": F.col("length"),
        "earliest": F.when(dated, F.col("date")).otherwise(F.lit("9999")),
        "latest": F.when(dated, F.translate("date", "0123456789", "9876543210")).otherwise(F.lit("~")),
    }
    return F.struct(
        "dump",
        *(keys[preference].alias(f"by{index}") for index, preference in enumerate(preferences)),
        *(F.col(name) for name in ("doc_id", *ties)),
    )


def _reversed_digits(date: str) -> str:
    return date.translate(str.maketrans("0123456789", "9876543210")) if date else "~"


def choose(edges: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[str, float]]:
    """The reference of `choose_in_spark`, on one machine.

    `edges[loser][winner]` is the verified similarity of two documents of which `winner` comes first in the
    order. Documents are settled from the front of the order: one is dropped only if it is near to one that is
    kept, so a chain of near-duplicates never ends with none. Returns loser -> (survivor, similarity), the most
    similar survivor, ties by id.
    """
    settled: dict[str, tuple[str, float] | None] = {}

    def settle(document: str) -> tuple[str, float] | None:
        waiting = [document]
        while waiting:
            current = waiting[-1]
            ahead = [winner for winner in edges.get(current, {}) if winner not in settled]
            if ahead:
                waiting.extend(ahead)
                continue
            kept = [(w, s) for w, s in edges.get(current, {}).items() if settled[w] is None]
            settled[current] = min(kept, key=lambda pair: (-pair[1], pair[0])) if kept else None
            waiting.pop()
        return settled[document]

    return {loser: fate for loser in sorted(edges) if (fate := settle(loser)) is not None}


def choose_in_spark(edges: DataFrame, checkpoint: Checkpoint) -> DataFrame:
    """Settle all documents of the graph; columns `doc_id`, `duplicate_of`, `similarity` of those dropped.

    `edges` has the columns `loser`, `winner`, `similarity`. In a round, a winner that loses no open comparison is
    kept, whoever loses to it is dropped, and the edges of the dropped are closed: a dropped document drops no
    one. What is still open after SPARK_ROUNDS rounds is divided into its connected components, and a task
    settles whole components, one after another. `checkpoint(name, frame)` commits a table and reads it back.

    Raises:
        RuntimeError: the edges go round in a circle, which an order never does; or `components.unique_salt`. A
            circle that is found in a task comes as Spark's exception with the same words.
    """
    from pyspark.sql import functions as F

    pairs = edges.select("loser", "winner")
    salt = components.unique_salt(pairs, checkpoint)
    keyed = pairs.select(*(components.key_of(end, salt).alias(end) for end in pairs.columns))
    open_edges, settled = checkpoint("open-0", keyed), []
    for number in range(1, SPARK_ROUNDS + 1):
        if open_edges.isEmpty():
            break
        now = checkpoint(f"dropped-{number}", _beaten(open_edges))
        if now.isEmpty():
            raise RuntimeError(CIRCLE)
        open_edges = checkpoint(
            f"open-{number}",
            open_edges.join(now.toDF("loser"), "loser", "left_anti").join(now.toDF("winner"), "winner", "left_anti"),
        )
        settled.append(now)
    if not open_edges.isEmpty():
        settled.append(checkpoint("dropped-by-component", _settled_by_component(open_edges, checkpoint)))
    dropped = reduce(lambda some, more: some.union(more), settled, keyed.select("loser").limit(0)).toDF("key")
    nearest = F.min(F.struct((-F.col("similarity")).alias("distance"), F.col("winner")))
    return (
        edges.withColumn("key", components.key_of("winner", salt))
        .join(dropped, "key", "left_anti")
        .groupBy(F.col("loser").alias("doc_id"))
        .agg(nearest.alias("nearest"))
        .select(
            "doc_id",
            F.col("nearest.winner").alias("duplicate_of"),
            (-F.col("nearest.distance")).alias("similarity"),
        )
    )


def _beaten(open_edges: DataFrame) -> DataFrame:
    """The `loser` of each edge whose winner loses none."""
    from pyspark.sql import functions as F

    ends = open_edges.selectExpr("loser AS winner", "true AS loses").union(
        open_edges.selectExpr("winner", "false AS loses")
    )
    free = ends.groupBy("winner").agg(F.max("loses").alias("loses")).where("NOT loses")
    return open_edges.join(free, "winner", "left_semi").select("loser").distinct()


def _settled_by_component(open_edges: DataFrame, checkpoint: Checkpoint) -> DataFrame:
    """The `loser` of each edge whom `choose` drops; the edges of a component are in one task, in one piece.

    Components are packed by ranges of their labels with about as many edges each, as a sample has them: a giant has a
    task to itself, and which ones it is packed with plays no part in the result.
    """
    from dots_data.engines.spark import map_batches

    def settle(batches: Batches) -> Batches:
        for loser, winner in whole_components(batches):
            yield pa.record_batch([pa.array(settle_whole(loser, winner))], schema=_LOSER)

    labels = components.contract(
        open_edges.select("loser", "winner"), lambda name, frame: checkpoint(f"components-{name}", frame)
    )
    labelled = checkpoint("labelled", open_edges.join(labels.withColumnRenamed("vertex", "loser"), "loser"))
    tasks = int(open_edges.sparkSession.conf.get("spark.sql.shuffle.partitions") or 1)
    packed = labelled.repartitionByRange(tasks, "component").sortWithinPartitions("component")
    return map_batches(packed.select("component", "loser", "winner"), settle, _LOSER)


def whole_components(batches: Batches, at_least: int = 1 << 16) -> Iterator[tuple[I64, I64]]:
    """Losers and winners, [edges] each, of whole components at a time, with `at_least` so many edges but at the end.

    `batches` (component, loser, winner) stand in the order of the components.
    """
    held: list[I64] = []
    rows, last = 0, None
    for batch in batches:
        block = np.stack([column.to_numpy() for column in batch.columns])
        cut = int(np.searchsorted(block[0], block[0, -1]))
        if rows + cut >= at_least and (cut or block[0, 0] != last):
            whole = np.concatenate([*held, block[:, :cut]], axis=1)
            yield whole[1], whole[2]
            held, rows, block = [], 0, block[:, cut:]
        held.append(block)
        rows, last = rows + block.shape[1], block[0, -1]
    if held:
        whole = np.concatenate(held, axis=1)
        yield whole[1], whole[2]


def settle_whole(loser: I64, winner: I64) -> I64:
    """The vertices that `choose` drops, of edges [edges] from loser to winner: similarities play no part in that.

    Time and memory are linear in the edges, but for the sort that numbers the vertices.

    Raises:
        RuntimeError: the edges go round in a circle.
    """
    names, numbers = np.unique(np.concatenate([loser, winner]), return_inverse=True)
    losers, winners = numbers[: len(loser)], numbers[len(loser) :]
    starts = np.concatenate([[0], np.cumsum(np.bincount(winners, minlength=len(names)))])
    below = losers[np.argsort(winners, kind="stable")]
    ahead = np.bincount(losers, minlength=len(names))
    dropped, reached = _front_to_back()(starts, below, ahead)
    if reached < len(names):
        raise RuntimeError(CIRCLE)
    settled: I64 = names[dropped]
    return settled


@cache
def _front_to_back() -> Any:
    """Vertices are settled once all ahead of them are; compiled, since a chain is as many steps as it is long."""
    import numba

    @numba.njit(cache=True, nogil=True)
    def settle(starts: I64, below: I64, ahead: I64) -> Any:
        dropped = np.zeros(len(ahead), np.bool_)
        ready = np.empty(len(ahead), np.int64)
        found = 0
        for vertex in range(len(ahead)):
            if ahead[vertex] == 0:
                ready[found] = vertex
                found += 1
        reached = 0
        while reached < found:
            vertex = ready[reached]
            reached += 1
            for at in range(starts[vertex], starts[vertex + 1]):
                loser = below[at]
                if not dropped[vertex]:
                    dropped[loser] = True
                ahead[loser] -= 1
                if ahead[loser] == 0:
                    ready[found] = loser
                    found += 1
        return dropped, reached

    return settle
