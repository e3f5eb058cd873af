"""Who stays: one order for every duplicate, and survivor choice among verified near-duplicates.

The report keeps "one at random" (Appendix C.1); here it is a rule of the recipe with ties broken by content, so
that the result is the same for any partitioning and any run.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from dots_data.engines.spark import Checkpoint

Preference = Literal["longest", "shortest", "earliest", "latest"]

# Rounds settle what is many and shallow; a long chain is thin, and is settled whole where it fits one machine.
SPARK_ROUNDS = 8
LOCAL_EDGES = 2_000_000


def order_key(
    preferences: tuple[Preference, ...], doc_id: str, date: str, length: int, dump: str = ""
) -> tuple[int | str, ...]:
    """The sort key of a document: the smaller key survives. The last word is always the id, which is content.

    The first word is the dump: what an earlier dump kept, a later one does not take away. A page without a date is
    taken as later than any dated one.
    """
    keys: dict[str, int | str] = {
        "longest": -length,
        "shortest": length,
        "earliest": date or "9999",
        "latest": _reversed_digits(date),
    }
    return (dump, *(keys[preference] for preference in preferences), doc_id)


def order_column(preferences: tuple[Preference, ...], *ties: str) -> Column:
    """`order_key` as a Spark struct over the columns `dump`, `doc_id`, `date` and `length`, then the columns `ties`."""
    from pyspark.sql import functions as F

    dated = F.col("date") != ""
    keys = {
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
    """Settle all documents of the graph in rounds; columns `doc_id`, `duplicate_of`, `similarity` of those dropped.

    `edges` has the columns `loser`, `winner`, `similarity`. In a round, a winner that loses no open comparison is
    kept, whoever loses to it is dropped, and the edges of the dropped are closed: a dropped document drops no
    one. `checkpoint(name, frame)` materialises a round's table and reads it back. After SPARK_ROUNDS rounds, what
    is still open is settled by `choose`, once it is no more than LOCAL_EDGES.

    Raises:
        RuntimeError: the edges go round in a circle, which an order never does.
    """
    from pyspark.sql import functions as F

    open_edges = edges.select("loser", "winner")
    dropped = edges.select(F.col("loser").alias("doc_id")).limit(0)
    for number in count(1):
        if open_edges.isEmpty():
            break
        if number > SPARK_ROUNDS and open_edges.count() <= LOCAL_EDGES:
            dropped = dropped.union(_settled_here(open_edges))
            break
        free = (
            open_edges.select("winner")
            .distinct()
            .join(open_edges.select(F.col("loser").alias("winner")).distinct(), "winner", "left_anti")
        )
        now = open_edges.join(free, "winner", "left_semi").select(F.col("loser").alias("doc_id")).distinct()
        now = checkpoint(f"dropped-{number}", now)
        if now.isEmpty():
            raise RuntimeError("near-duplicates cannot be settled: each of them comes after another")
        open_edges = checkpoint(
            f"open-{number}",
            open_edges.join(now.withColumnRenamed("doc_id", "loser"), "loser", "left_anti").join(
                now.withColumnRenamed("doc_id", "winner"), "winner", "left_anti"
            ),
        )
        dropped = dropped.union(now)
    nearest = F.min(F.struct((-F.col("similarity")).alias("distance"), F.col("winner")))
    return (
        edges.join(dropped.withColumnRenamed("doc_id", "winner"), "winner", "left_anti")
        .groupBy(F.col("loser").alias("doc_id"))
        .agg(nearest.alias("nearest"))
        .select(
            "doc_id",
            F.col("nearest.winner").alias("duplicate_of"),
            (-F.col("nearest.distance")).alias("similarity"),
        )
    )


def _settled_here(open_edges: DataFrame) -> DataFrame:
    """The documents (`doc_id`) that `choose` drops of a small graph. Similarities play no part in who is dropped."""
    graph: dict[str, dict[str, float]] = {}
    for loser, winner in open_edges.select("loser", "winner").toLocalIterator():
        graph.setdefault(loser, {})[winner] = 1.0
    return open_edges.sparkSession.createDataFrame([(loser,) for loser in choose(graph)], "doc_id string")
