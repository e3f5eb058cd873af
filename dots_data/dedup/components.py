"""Connected components of a graph too large for one machine, in O(log n) rounds of shrinking size.

Randomised contraction (Boegeholz, Brand and Todor, "In-database connected component analysis", ICDE 2020): in a
round every vertex goes over to the first of its neighbours and itself, in an order that is drawn anew each round;
the edges are drawn between those that were gone over to. A fixed share of the vertices is gone after each
round in expectation, so that all rounds together shuffle a small multiple of the graph: a star is one round, a
chain halves. Propagating the smallest label takes as many rounds as the chain is long; large-star and small-star
keep all vertices in every round.

No vertex's neighbours are ever a list in memory: the first one is a running minimum.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from itertools import count
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from dots_data.engines.spark import Checkpoint

Vertex = TypeVar("Vertex", int, str)

# One clash of 64-bit keys is likely from some billions of ids on; two salts in a row that clash are not.
MOST_SALTS = 8


def union_find(edges: Iterable[tuple[Vertex, Vertex]]) -> dict[Vertex, Vertex]:
    """The reference on one machine: every vertex with the smallest vertex of its component."""
    parent: dict[Vertex, Vertex] = {}

    def root(vertex: Vertex) -> Vertex:
        while (above := parent.setdefault(vertex, vertex)) != vertex:
            parent[vertex] = vertex = parent[above]
        return vertex

    for one, other in edges:
        first, second = root(one), root(other)
        parent[max(first, second)] = min(first, second)
    return {vertex: root(vertex) for vertex in list(parent)}


def components(edges: DataFrame, checkpoint: Checkpoint) -> DataFrame:
    """Columns `doc_id` and `component`, the smallest id of its component, for every id in `edges`.

    `edges` has two columns of ids, strings. `checkpoint(name, frame)` commits a round's table and reads it back, so
    that a run that was killed goes on with the round in which it was.

    Raises:
        RuntimeError: no salt tells all ids apart.
    """
    from pyspark.sql import functions as F

    one, other = edges.columns
    salt = unique_salt(edges, checkpoint)
    pairs = edges.select(key_of(one, salt).alias("one"), key_of(other, salt).alias("other"))
    labels = contract(checkpoint("graph-0", pairs), checkpoint)
    ids = _ends(edges).distinct().withColumn("vertex", key_of("id", salt))
    named = checkpoint("named", ids.join(labels, "vertex").select(F.col("id").alias("doc_id"), "component"))
    first = named.groupBy("component").agg(F.min("doc_id").alias("first"))
    return named.join(first, "component").select("doc_id", F.col("first").alias("component"))


def key_of(column: str, salt: int) -> Column:
    """The 64-bit key of a column of ids."""
    from pyspark.sql import functions as F

    return F.xxhash64(F.lit(salt), F.col(column))


def unique_salt(edges: DataFrame, checkpoint: Checkpoint) -> int:
    """The first salt under which no two ids in the two columns of `edges` have one key.

    Ids are told apart by a second, independent hash: 128 bits in all, as many as an id has.

    Raises:
        RuntimeError: MOST_SALTS were tried in vain, as with ids that were made to clash.
    """
    from pyspark.sql import functions as F

    for salt in range(MOST_SALTS):
        checks = _ends(edges).groupBy(key_of("id", salt).alias("key"))
        spread = checks.agg(F.min(key_of("id", -1)).alias("least"), F.max(key_of("id", -1)).alias("most"))
        if checkpoint(f"clashes-{salt}", spread.where("least != most").select("key")).isEmpty():
            return salt
    raise RuntimeError(f"ids have equal 64-bit hashes under each of {MOST_SALTS} salts")


def contract(edges: DataFrame, checkpoint: Checkpoint) -> DataFrame:
    """Columns `vertex` and `component` for every vertex of `edges`, which has two columns of 64-bit vertices.

    The component is one of its vertices. Of a round, `heads` says which vertex each went over to, and `graph` are
    the edges that are left; on the way back `labels` tells each what its head has come to.
    """
    from pyspark.sql import functions as F

    edges, heads = edges.toDF("one", "other"), []
    for number in count(1):
        if edges.isEmpty():
            break
        heads.append(checkpoint(f"heads-{number}", _heads(edges, number)))
        edges = checkpoint(f"graph-{number}", _contracted(edges, heads[-1]))
    if not heads:
        return edges.toDF("vertex", "component")

    def back(labels: DataFrame, number: int) -> DataFrame:
        # A head that met no other in a later round is the last of its component.
        known = heads[number - 1].join(labels.withColumnRenamed("vertex", "head"), "head", "left")
        return checkpoint(
            f"labels-{number}", known.select("vertex", F.coalesce("component", "head").alias("component"))
        )

    return reduce(back, range(len(heads) - 1, 0, -1), heads[-1].toDF("vertex", "component"))


def _ends(edges: DataFrame) -> DataFrame:
    """The ids of both columns, one below the other."""
    one, other = edges.columns
    return edges.selectExpr(f"explode(array({one}, {other})) AS id")


def _heads(edges: DataFrame, number: int) -> DataFrame:
    """Every `vertex` with its `head`: the first of itself and its neighbours in the order of this round.

    XXH64 of a single long is a permutation of all longs, so that the order has no ties.
    """
    from pyspark.sql import functions as F

    both = edges.union(edges.select("other", "one"))
    nearest = both.groupBy(F.col("one").alias("vertex")).agg(F.min_by("other", key_of("other", number)).alias("near"))
    goes = key_of("near", number) < key_of("vertex", number)
    return nearest.select("vertex", F.when(goes, F.col("near")).otherwise(F.col("vertex")).alias("head"))


def _contracted(edges: DataFrame, heads: DataFrame) -> DataFrame:
    """The edges between heads, each once, loops left out."""
    from pyspark.sql import functions as F

    moved = edges.join(heads.toDF("one", "head_one"), "one").join(heads.toDF("other", "head_other"), "other")
    ends = F.least("head_one", "head_other").alias("one"), F.greatest("head_one", "head_other").alias("other")
    return moved.where("head_one != head_other").select(*ends).distinct()
