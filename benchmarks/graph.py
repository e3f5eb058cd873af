"""Components and survivors of a hard graph: right, within memory, and resumed after being killed.

    python -m benchmarks.graph [--edges 10000000] [--memory 2g]

The graph is a chain (a hundredth of the edges, each document near to the next alone), a star (a tenth, one document
near to all) and random edges, half of them thin (many small components), half dense enough for one giant component.
The work runs as a process group of its own that is killed, `kill -9`, once in a middle round of the components
and once in a middle round of the survivors, and started again. What it made is compared with a union-find and with
`survivors.choose` on one machine. Memory is the sum of the resident sets of Java, Python and all workers, sampled.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dots_data import console
from dots_data.dedup import components, survivors
from dots_data.engines import spark as engine

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

RESULTS = Path(__file__).parent / "results"
FOLDER = Path("build/bench/graph")
SAMPLE_SECONDS = 0.5


def make_edges(spark: SparkSession, edges: int) -> DataFrame:
    """`loser`, `winner` and `similarity`; an id is a number with leading zeros, and the smaller number survives."""
    from pyspark.sql import functions as F

    chain, star = edges // 100, edges // 10
    thin = (edges - chain - star) // 2
    dense = edges - chain - star - thin
    first = np.cumsum([0, chain + 1, star + 1, 2 * thin]).tolist()

    def random_end(seed: int, vertices: int, start: int) -> Any:
        return F.pmod(F.xxhash64(F.lit(seed), "id"), F.lit(vertices)) + start

    def numbered(count: int, one: Any, other: Any) -> DataFrame:
        return spark.range(count).select(one.alias("one"), other.alias("other"))

    parts = [
        numbered(chain, F.col("id") + first[0], F.col("id") + first[0] + 1),
        numbered(star, F.lit(first[1]), F.col("id") + first[1] + 1),
        numbered(thin, random_end(1, 2 * thin, first[2]), random_end(2, 2 * thin, first[2])),
        numbered(dense, random_end(3, dense, first[3]), random_end(4, dense, first[3])),
    ]
    every = parts[0].union(parts[1]).union(parts[2]).union(parts[3]).where("one != other").repartition(16)
    loser, winner = F.greatest("one", "other"), F.least("one", "other")
    # Few values, so that many are equal and ids must decide.
    similarity = F.lit(0.8) + F.pmod(F.xxhash64(loser, winner), F.lit(20)) / 100
    ids = (F.lpad(end.cast("string"), 32, "0") for end in (loser, winner))
    return every.select(
        *(one.alias(name) for one, name in zip(ids, ("loser", "winner"), strict=True)), similarity.alias("similarity")
    )


def work(folder: Path, edges: int, memory: str) -> None:
    """The graph, its components and its survivors, each table committed."""
    resources = engine.Resources(memory=memory)
    with engine.session("graph", resources, folder / "scratch", folder / "spark.log") as spark:
        stages = engine.Stages(spark, folder / "stages", f"{edges}")
        graph = stages.table("edges", lambda: make_edges(spark, edges))
        stages.table(
            "components", lambda: components.components(graph.select("loser", "winner"), stages.inside("components"))
        )
        stages.table("survivors", lambda: survivors.choose_in_spark(graph, stages.inside("survivors")))


def resident_bytes(pid: int) -> int:
    """Memory of a process and all below it, pages that they share counted in each.

    Java starts a program by a child that for a moment runs in Java's own memory: that is counted once.
    """
    found: dict[int, tuple[int, str, int]] = {}
    with contextlib.suppress(psutil.Error):
        for process in [(root := psutil.Process(pid)), *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                found[process.pid] = process.ppid(), process.exe(), process.memory_info().rss
    above = {pid: found.get(parent, (0, "", 0))[1] for pid, (parent, _, _) in found.items()}
    return sum(rss for pid, (_, exe, rss) in found.items() if not (exe.endswith("/java") and above[pid] == exe))


def watched(arguments: list[str], until: Callable[[], bool] = lambda: False) -> tuple[int, bool]:
    """Peak memory of a run of `work`, bytes, and whether it ended by itself: else it was killed, by `until`.

    Raises:
        RuntimeError: the run failed.
    """
    command = [sys.executable, "-m", "benchmarks.graph", "--work", *arguments]
    running, peak = subprocess.Popen(command, start_new_session=True), 0
    while running.poll() is None:
        peak = max(peak, resident_bytes(running.pid))
        if until():
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            return peak, False
        time.sleep(SAMPLE_SECONDS)
    if running.returncode:
        raise RuntimeError(f"the run ended with {running.returncode}")
    return peak, True


def numbers_of(table: pa.Table, column: str) -> NDArray[np.int64]:
    return table.column(column).cast(pa.int64()).to_numpy()


def wrong_components(stages: Path) -> tuple[int, int, int]:
    """Vertices whose component is not that of the union-find, vertices, components."""
    edges = pq.read_table(stages / "edges", columns=["loser", "winner"])
    ends = [numbers_of(edges, name).tolist() for name in ("loser", "winner")]
    expected = components.union_find(zip(*ends, strict=True))
    found = pq.read_table(stages / "components")
    pairs = zip(numbers_of(found, "doc_id").tolist(), numbers_of(found, "component").tolist(), strict=True)
    wrong = sum(expected.get(vertex) != component for vertex, component in pairs) + abs(len(expected) - len(found))
    return wrong, len(expected), sum(vertex == component for vertex, component in expected.items())


def by_component(stages: Path, at_once: int = 500_000) -> Iterator[dict[int, dict[int, float]]]:
    """The edges as `choose` takes them, so many at a time: a component is never divided."""
    labels = pq.read_table(stages / "components")
    vertices, label = numbers_of(labels, "doc_id"), numbers_of(labels, "component")
    order = np.argsort(vertices)
    vertices, label = vertices[order], label[order]
    edges = pq.read_table(stages / "edges")
    loser, winner = numbers_of(edges, "loser"), numbers_of(edges, "winner")
    similarity = edges.column("similarity").to_numpy()
    mine = label[np.searchsorted(vertices, loser)]
    order = np.argsort(mine, kind="stable")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(mine[order])) + 1, [len(order)]])
    at = 0
    while at < len(order):
        end = int(starts[min(np.searchsorted(starts, at + at_once), len(starts) - 1)])
        graph: dict[int, dict[int, float]] = {}
        some = order[at:end]
        for one, other, value in zip(
            loser[some].tolist(), winner[some].tolist(), similarity[some].tolist(), strict=True
        ):
            graph.setdefault(one, {})[other] = value
        yield graph
        at = end


def wrong_survivors(stages: Path) -> tuple[int, int]:
    """Documents whose fate is not that of `choose`, and documents dropped."""
    found = pq.read_table(stages / "survivors")
    order = pc.sort_indices(found, [("doc_id", "ascending")])
    found = found.take(order)
    doc_id, survivor = numbers_of(found, "doc_id"), numbers_of(found, "duplicate_of")
    similarity = found.column("similarity").to_numpy()
    wrong = dropped = 0
    for graph in by_component(stages):
        expected = survivors.choose(graph)  # type: ignore[arg-type]
        dropped += len(expected)
        losers = np.fromiter(expected, np.int64, len(expected))
        at = np.searchsorted(doc_id, losers)
        at[at == len(doc_id)] = 0
        same = (
            (doc_id[at] == losers)
            & (survivor[at] == np.array([fate[0] for fate in expected.values()], np.int64))
            & (similarity[at] == np.array([fate[1] for fate in expected.values()]))
        )
        wrong += int((~same).sum())
    return wrong + abs(dropped - len(found)), dropped


def seconds_by_table(stages: Path) -> dict[str, float]:
    """Seconds of every committed table, in the order in which they were made."""
    made = sorted(stages.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return {path.stem: round(json.loads(path.read_text())["seconds"], 1) for path in made}


def main() -> int:
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks.graph", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--edges", type=int, default=10_000_000, help="default: %(default)s")
    arguments.add_argument("--memory", default="2g", help="Java's heap (default: %(default)s)")
    arguments.add_argument("--folder", type=Path, default=FOLDER, help="made anew (default: %(default)s)")
    arguments.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    arguments.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.work:
        work(options.folder, options.edges, options.memory)
        return 0
    shutil.rmtree(options.folder, ignore_errors=True)
    stages = options.folder / "stages"
    given = ["--edges", str(options.edges), "--memory", options.memory, "--folder", str(options.folder)]
    peaks, kills, kept = [], [], {}
    for table in ("components.heads-3", "survivors.dropped-3"):
        peak, ended = watched(given, (stages / f"{table}.json").exists)
        if ended:
            raise RuntimeError(f"the run ended before {table}")
        peaks.append(peak)
        kills.append(table)
        kept |= {path: path.stat().st_mtime_ns for path in stages.glob("*.json")}
    peaks.append(watched(given)[0])
    made_again = [path.stem for path, at in kept.items() if path.stat().st_mtime_ns != at]
    seconds = seconds_by_table(stages)
    wrong, vertices, count = wrong_components(stages)
    unlike, dropped = wrong_survivors(stages)
    result = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "cores": engine.Resources().usable_cores,
        "java_heap": options.memory,
        "edges": pq.read_table(stages / "edges", columns=[]).num_rows,
        "vertices": vertices,
        "components": count,
        "wrong_components": wrong,
        "dropped": dropped,
        "wrong_survivors": unlike,
        "component_rounds": sum(bool(re.fullmatch(r"components\.heads-\d+", name)) for name in seconds),
        "survivor_rounds": sum(bool(re.fullmatch(r"survivors\.dropped-\d+", name)) for name in seconds),
        "peak_gib": [round(peak / 2**30, 2) for peak in peaks],
        "killed_after": kills,
        "made_again": made_again,
        "seconds": seconds,
    }
    console.table("components and survivors", ("figure", "value"), [(k, f"{v}") for k, v in result.items()], left=2)
    options.results.mkdir(exist_ok=True)
    (options.results / "graph.json").write_text(json.dumps(result, indent=1) + "\n")
    return bool(wrong or unlike or made_again)


if __name__ == "__main__":
    sys.exit(main())
