"""`make bench-dedup`: fuzzy deduplication beside datatrove's, how it grows, and what it finds and misses.

    python -m benchmarks.dedup [--only PART ...] [--documents N] [--peer-documents N]

    signatures   benchmarks.signatures on the real texts
    whole        from a corpus on disk to who is dropped, and who stays instead: ours on local Spark, as crawl-clean
                 runs it, and datatrove's four steps at 128 buckets of 16 hashes of 64 bits; what each drops,
                 judged by the true similarity of all pairs of documents
    growth       ours on an eighth, a quarter, a half and the whole of the corpus
    real         the real texts: every dropped document compared again with its survivor, by other code; and recall
                 against all pairs of a sample
    groups       OUTPUT of a crawl-clean run over the real pages (--output): what became of the groups of byte-identical
                 pages, and of pages of one URL

The corpus (benchmarks/corpus.py says how it is made) has 2.3 KB a document; three in ten are near-copies. CPU seconds
are those of all processes of a tool, Java's among them, watched from outside; memory is the most that these held
together, with what forked processes share counted for each. The parts that were run replace theirs in
benchmarks/results/dedup.json.
"""

# ruff: noqa: E402
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import datetime
import json
import multiprocessing
import platform
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks import corpus
from benchmarks.texts import DATA, real_texts
from benchmarks.usage import Usage, watched
from dots_data import console
from dots_data.dedup import minhash
from dots_data.dedup.minhash import FuzzyConfig
from dots_data.text import shingle_words

WORK = Path("build/bench-dedup")
RESULTS = Path(__file__).parent / "results" / "dedup.json"
PEER = (Path("build/peers/datatrove-dedup/bin/python"), Path(__file__).parent / "peers" / "datatrove_dedup.py")
PARTS = ("signatures", "whole", "growth", "real", "groups")
# A crawl of many dumps, for which the paragraph on growth is computed.
CRAWL = 3_000_000_000
SAMPLE = 5_000


def make_corpus(count: int) -> Path:
    """The corpus of `count` documents under build/, made once."""
    folder = WORK / f"corpus-{count}"
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        sources = [corpus.passages(row["text"] for row in rows if row["lang"] == "en") for _, rows in real_texts()]
        corpus.write([source for source in sources if source], count, folder)
        (folder / "whole").touch()
    return folder


def deduplicate(files: Sequence[str], output: str) -> None:
    """Fuzzy deduplication as crawl-clean runs it: Parquet with `doc_id, dump, date, language, text` in, the dropped
    documents and their survivors out, as output/dropped/*.parquet."""
    from pyspark.sql import functions as F

    from dots_data.dedup.index import Earlier
    from dots_data.engines import spark as engine
    from pipelines.crawl_clean import near_duplicates

    events = Path(output).resolve() / "events"
    events.mkdir(parents=True)
    settings = {"enabled": "true", "dir": f"file://{events}", "rolling.enabled": "false", "compress": "false"}
    told = " ".join(f"--conf spark.eventLog.{name}={value}" for name, value in settings.items())
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"{told} pyspark-shell"
    work = Path(output) / "work"
    with engine.session("bench-dedup", engine.Resources(), work, Path(output) / "spark.log") as spark:
        stages = engine.Stages(spark, work / "stages", "benchmark")
        alike = {"decision": F.lit(None).cast("string"), "site_rank": F.lit(0), "quality": F.lit(0.0)}
        documents = spark.read.parquet(*files).withColumns(alike)
        dropped = near_duplicates(documents, FuzzyConfig(), stages, Earlier())
        dropped.write.parquet(str(Path(output) / "dropped"))


def ours(files: Sequence[Path], output: Path) -> dict[str, Any]:
    """What `deduplicate` takes in processes of its own, and how many bytes went through Spark's shuffles."""
    shutil.rmtree(output, ignore_errors=True)
    process = multiprocessing.get_context("spawn").Process(target=deduplicate, args=([*map(str, files)], str(output)))
    process.start()
    assert process.pid is not None
    usage = watched(psutil.Process(process.pid), process.is_alive)
    if process.exitcode:
        raise RuntimeError(f"deduplication ended with {process.exitcode}; Spark's log is {output}/spark.log")
    return {**usage._asdict(), "shuffle_bytes": shuffle_bytes(output / "events")}


def shuffle_bytes(events: Path) -> int:
    """The bytes that all tasks wrote for a shuffle, from Spark's log of events."""
    written = 0
    for path in events.iterdir():
        for line in path.open(encoding="utf-8"):
            event = json.loads(line)
            if event["Event"] == "SparkListenerTaskEnd" and event.get("Task Metrics"):
                written += event["Task Metrics"]["Shuffle Write Metrics"]["Shuffle Bytes Written"]
    return written


def datatrove(folder: Path, files: int, workers: int, output: Path) -> dict[str, Any]:
    """What datatrove's four steps take on the first files of a corpus."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    steps: dict[str, Usage] = {}
    version = ""
    for step in ("signatures", "buckets", "cluster", "filter"):
        command = [*map(str, PEER), step, str(folder.resolve()), str(output.resolve()), str(files), str(workers)]
        with open(output / f"{step}.log", "w") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
            steps[step] = watched(psutil.Process(process.pid), partial(_runs, process))
        if process.returncode:
            raise RuntimeError(f"datatrove ended with {process.returncode}; its log is {output}/{step}.log")
        assert process.stdout is not None
        version = process.stdout.read().strip()
    total = Usage(
        sum(one.cpu_seconds for one in steps.values()),
        sum(one.wall_seconds for one in steps.values()),
        max(one.peak_bytes for one in steps.values()),
    )
    return {**total._asdict(), "version": version, "steps": {name: one.cpu_seconds for name, one in steps.items()}}


def _runs(process: subprocess.Popen[str]) -> bool:
    return process.poll() is None


@numba.njit(cache=True)
def _similar(
    starts: NDArray[np.int64],
    shingles: NDArray[np.int32],
    posting_starts: NDArray[np.int64],
    postings: NDArray[np.int32],
    sizes: NDArray[np.int64],
    threshold: float,
) -> list[tuple[int, int, float]]:
    """Pairs (i, j) of documents, j < i, with their Jaccard similarity, where it reaches the threshold."""
    found = [(0, 0, 0.0)]
    shared = np.zeros(len(sizes), np.int32)
    met = np.empty(len(sizes), np.int64)
    for i in range(len(sizes)):
        count = 0
        for shingle in shingles[starts[i] : starts[i + 1]]:
            for j in postings[posting_starts[shingle] : posting_starts[shingle + 1]]:
                if j >= i:
                    break
                if not shared[j]:
                    met[count] = j
                    count += 1
                shared[j] += 1
        for j in met[:count]:
            similarity = shared[j] / (sizes[i] + sizes[j] - shared[j])
            if similarity >= threshold:
                found.append((i, j, similarity))
            shared[j] = 0
    return found[1:]


def all_pairs(sets: Sequence[NDArray[np.uint64]], threshold: float) -> list[tuple[int, int, float]]:
    """Every pair of documents whose shingle sets have a Jaccard similarity of `threshold` or more: brute force, by way
    of the documents of each shingle."""
    sizes = np.array(list(map(len, sets)))
    _, numbers, counts = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    # A shingle of one document is in no intersection.
    several = counts[numbers] > 1
    documents = np.repeat(np.arange(len(sets), dtype=np.int32), sizes)[several]
    new_numbers = (np.cumsum(counts > 1) - 1).astype(np.int32)
    numbers = new_numbers[numbers[several]]
    starts = np.concatenate(([0], np.cumsum(np.bincount(documents, minlength=len(sets)))))
    postings = documents[np.argsort(numbers, kind="stable")]
    posting_starts = np.concatenate(([0], np.cumsum(np.bincount(numbers))))
    pairs: list[tuple[int, int, float]] = _similar(starts, numbers, posting_starts, postings, sizes, threshold)
    return pairs


def judged(dropped: set[int], pairs: Iterable[tuple[int, int, float]], documents: int) -> dict[str, Any]:
    """What a tool dropped, by the pairs at or over the threshold.

    right: dropped documents with such a neighbour that was kept. left: pairs of which both were kept.
    """
    right, left = set(), 0
    for pair in pairs:
        gone = [one for one in pair[:2] if one in dropped]
        left += not gone
        right.update(gone if len(gone) == 1 else ())
    return {
        "documents": documents,
        "dropped": len(dropped),
        "precision": len(right) / len(dropped) if dropped else 1.0,
        "pairs_left": left,
    }


def whole(options: argparse.Namespace) -> dict[str, Any]:
    """Both tools on the corpus."""
    folder = make_corpus(options.documents)
    peer_files = min(options.documents, options.peer_documents or options.documents) // corpus.FILE
    files = sorted(folder.glob("part-*.parquet"))
    result: dict[str, Any] = {"ours": ours(files, WORK / "ours")}
    texts = pa.concat_tables(pq.read_table(path, columns=["doc_id", "text"]) for path in files)
    numbers = {doc_id: number for number, doc_id in enumerate(texts["doc_id"].to_pylist())}
    sizes = pa.compute.binary_length(texts["text"]).to_numpy()
    result["ours"] |= {"documents": len(texts), "megabytes": float(sizes.sum()) / 1e6}
    drops = pq.read_table(WORK / "ours" / "dropped").to_pylist()
    pairs = all_pairs([minhash.shingles(text.as_py(), "en", 5) for text in texts["text"]], FuzzyConfig().threshold)
    dropped = {numbers[row["doc_id"]] for row in drops}
    result["pairs"] = len(pairs)
    result["ours"] |= judged(dropped, pairs, len(texts))
    result["ours"]["verified"] = verified(drops, {row["doc_id"]: (row["text"], "en") for row in texts.to_pylist()})
    if PEER[0].exists():
        among = peer_files * corpus.FILE
        peer = datatrove(folder, peer_files, options.workers, WORK / "datatrove")
        peer["megabytes"] = float(sizes[:among].sum()) / 1e6
        removed = {
            numbers[json.loads(line)["id"]]
            for path in (WORK / "datatrove" / "removed").glob("*.jsonl")
            for line in path.open(encoding="utf-8")
        }
        between = [pair for pair in pairs if max(pair[:2]) < among]
        result["datatrove"] = peer | judged(removed, between, among)
        if peer_files < len(files):
            # What is dropped depends on what else there is: ours on what datatrove was given.
            part = ours(files[:peer_files], WORK / "part")
            dropped = {numbers[row["doc_id"]] for row in pq.read_table(WORK / "part" / "dropped").to_pylist()}
            result["ours_on_part"] = part | judged(dropped, between, among) | {"megabytes": peer["megabytes"]}
        result["parted"] = agreement(dropped, removed, between)
        speeds = [result[tool]["megabytes"] / result[tool]["cpu_seconds"] for tool in ("ours", "datatrove")]
        result["ratio"] = speeds[0] / speeds[1]
    return result


_PARTED = {(True, True): "both", (True, False): "ours_alone", (False, True): "theirs_alone", (False, False): "none"}


def agreement(ours: set[int], theirs: set[int], pairs: Iterable[tuple[int, int, float]]) -> dict[str, int]:
    """Of how many pairs at or over the threshold both tools, one alone or none dropped a document. Which of the two
    goes is for each tool to choose."""
    counts: Counter[str] = Counter(dict.fromkeys(_PARTED.values(), 0))
    for pair in pairs:
        counts[_PARTED[not ours.isdisjoint(pair[:2]), not theirs.isdisjoint(pair[:2])]] += 1
    return dict(counts)


def plain_jaccard(left: tuple[str, str], right: tuple[str, str]) -> float:
    """The similarity of two texts, each with its language, by sets of tuples of words."""
    sets = []
    for text, language in (left, right):
        words = shingle_words(text, language)
        sets.append({tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))} - {()})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def verified(drops: Sequence[dict[str, Any]], texts: dict[str, tuple[str, str]]) -> dict[str, int]:
    """How many of the dropped documents have a survivor that was kept, at the similarity that was written down, which
    is that of the texts and reaches the threshold."""
    gone = {row["doc_id"] for row in drops}
    counts: Counter[str] = Counter(dropped=len(drops), survivor_kept=0, similarity_equal=0, over_threshold=0)
    for row in drops:
        survivor = row["duplicate_of"]
        counts["survivor_kept"] += survivor in texts and survivor not in gone
        similarity = plain_jaccard(texts[row["doc_id"]], texts[survivor])
        counts["similarity_equal"] += similarity == row["similarity"]
        counts["over_threshold"] += similarity >= FuzzyConfig().threshold
    return dict(counts)


def growth(options: argparse.Namespace) -> dict[str, Any]:
    """Ours on ever more of the corpus, and what it means for a crawl."""
    files = sorted(make_corpus(options.documents).glob("part-*.parquet"))
    lines = []
    for share in (8, 4, 2, 1):
        part = files[: len(files) // share]
        documents = sum(pq.read_metadata(path).num_rows for path in part)
        lines.append({"documents": documents, **ours(part, WORK / "growth")})
    return {"lines": lines, "crawl": crawl(lines)}


def crawl(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What the growth comes to for CRAWL documents: each document's share, without what every run takes."""
    least, most = lines[0], lines[-1]
    more = most["documents"] - least["documents"]
    seconds, shuffled = ((most[key] - least[key]) / more for key in ("cpu_seconds", "shuffle_bytes"))
    return {
        "documents": CRAWL,
        "cpu_seconds_a_document": seconds,
        "shuffle_bytes_a_document": shuffled,
        "fixed_cpu_seconds": least["cpu_seconds"] - seconds * least["documents"],
        "core_hours": seconds * CRAWL / 3600,
        "shuffle_terabytes": shuffled * CRAWL / 1e12,
        "band_terabytes": 8 * FuzzyConfig().bands * CRAWL / 1e12,
    }


def said(paper: dict[str, float]) -> str:
    """The paragraph on a crawl."""
    return (
        f"A run takes {paper['fixed_cpu_seconds']:.0f} CPU seconds whatever its size, mostly Java's start and "
        f"compiler, and for each document more {1e3 * paper['cpu_seconds_a_document']:.2f} ms and "
        f"{paper['shuffle_bytes_a_document']:,.0f} bytes of shuffle. At that rate "
        f"{paper['documents'] / 1e9:.0f} billion documents are {paper['core_hours']:,.0f} core hours "
        f"({paper['core_hours'] / 1000:.1f} h on 1,000 cores), {paper['shuffle_terabytes']:.1f} TB through shuffles "
        f"and {paper['band_terabytes']:.1f} TB of band keys on disk. What a worker holds follows from documents over "
        "spark.sql.shuffle.partitions: with 20,000 of them a place of band keys is "
        f"{CRAWL * FuzzyConfig().bands * 16 / (20_000 * minhash.PLACES_A_TASK) / 1e6:.0f} MB."
    )


def real(options: argparse.Namespace) -> dict[str, Any]:
    """The real pages and texts, as crawl-clean would have them before fuzzy deduplication: what was dropped compared
    again, and what was missed among all pairs of a sample of pages."""
    from benchmarks.texts import texts_of
    from dots_data.dedup.identity import text_md5

    found = [*texts_of(str(DATA / "warc" / "*.warc.gz")), *texts_of(str(DATA / "text" / "*.jsonl.gz"))]
    different = {text_md5(one.text): one for one in found}
    rows = [
        {"doc_id": md5, "dump": "", "date": "", "language": one.language, "text": one.text}
        for md5, one in sorted(different.items())
    ]
    WORK.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, corpus.DOCUMENT), WORK / "real.parquet")
    usage = ours([WORK / "real.parquet"], WORK / "real")
    drops = pq.read_table(WORK / "real" / "dropped").to_pylist()
    texts = {row["doc_id"]: (row["text"], row["language"]) for row in rows}
    sample = [md5 for md5 in texts if different[md5].source.startswith("dev-")][:SAMPLE]
    pairs = {
        frozenset((sample[i], sample[j]))
        for i, j, _ in all_pairs([plain_shingles(*texts[md5]) for md5 in sample], FuzzyConfig().threshold)
    }
    edges = pq.read_table(WORK / "real" / "work" / "stages" / "fuzzy.edges").to_pylist()
    recalled = pairs & {frozenset((edge["loser"], edge["winner"])) for edge in edges}
    return {
        "documents": len(rows),
        **usage,
        **verified(drops, texts),
        "sample": len(sample),
        "pairs": len(pairs),
        "recall": len(recalled) / max(1, len(pairs)),
    }


def plain_shingles(text: str, language: str) -> NDArray[np.uint64]:
    """The different word 5-grams of a text as numbers, without the code that is measured."""
    import xxhash

    words = shingle_words(text, language)
    grams = {"\x1f".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))} - {""}
    return np.array(sorted(xxhash.xxh3_64_intdigest(gram.encode()) for gram in grams), np.uint64)


class Fate(NamedTuple):
    """What became of a page: the document that stands for it now, or None and the stage that ended it."""

    survivor: str | None
    stage: str | None


def groups(options: argparse.Namespace) -> dict[str, Any]:
    """What became of the groups of equal pages and of pages of one URL, by the ledger of a run over all of them."""
    columns = ["record_id", "doc_id", "decision", "stage", "duplicate_of", "text_md5"]
    ledger = pq.read_table(Path(options.output) / "ledger", columns=columns).to_pylist()
    rows = {row["record_id"].strip("<>"): row for row in ledger}
    records = {row["gid"]: row["record_id"].strip("<>") for row in json_lines("index")}
    equal = [[records[name] for name in group["ids"]] for group in json_lines("exact_dups")]
    by_url = [([records[name] for name in group["ids"]], group["byte_identical"]) for group in json_lines("same_url")]
    texts = extracted({record for group, identical in by_url if not identical for record in group})
    defects = []
    for group in equal:
        if len({fate(rows[record]).survivor for record in group} - {None}) > 1:
            defects.append([rows[record] for record in group])
    outcomes: Counter[tuple[str, str]] = Counter()
    both_kept = []
    for group, identical in by_url:
        kind, similarity = kind_of(group, identical, texts)
        outcomes[kind, outcome(group, rows)] += 1
        if kind == "near" and outcome(group, rows).startswith("several"):
            both_kept.append({"records": group, "similarity": similarity})
    return {
        "equal_pages": dict(Counter(outcome(group, rows) for group in equal).most_common()),
        "defects": defects,
        "same_url": [{"kind": kind, "outcome": what, "groups": n} for (kind, what), n in sorted(outcomes.items())],
        "near_and_kept": both_kept,
    }


def fate(row: dict[str, Any]) -> Fate:
    if row["decision"] == "kept":
        return Fate(row["doc_id"], None)
    return Fate(row["duplicate_of"], row["stage"])


def outcome(group: Sequence[str], rows: dict[str, dict[str, Any]]) -> str:
    """What became of the pages of a group, in words."""
    fates = [fate(rows[record]) for record in group]
    survivors = {one.survivor for one in fates} - {None}
    if not survivors:
        return "none, ended by " + ", ".join(sorted({one.stage or "" for one in fates}))
    if len(survivors) > 1:
        return "several survivors"
    ended = {one.stage for one in fates if one.survivor is None}
    if ended:
        return "one survivor, the others ended by " + ", ".join(sorted(map(str, ended)))
    return "one survivor" if survivors & {rows[record]["doc_id"] for record in group} else "one survivor outside"


def kind_of(group: Sequence[str], identical: bool, texts: dict[str, tuple[str, str]]) -> tuple[str, float]:
    """Whether the pages of a group are equal, near (any two of their texts, by the threshold) or different."""
    if identical:
        return "byte identical", 1.0
    pairs = [(texts[left], texts[right]) for k, left in enumerate(group) for right in group[:k]]
    similarity = max((plain_jaccard(*pair) for pair in pairs if any(text for text, _ in pair)), default=0.0)
    kind = "same text" if similarity == 1 else "near" if similarity >= FuzzyConfig().threshold else "different"
    return kind, similarity


def extracted(wanted: set[str]) -> dict[str, tuple[str, str]]:
    """The texts of the wanted pages with their languages."""
    from dots_data.crawl.warc import Page, read_pages
    from dots_data.extraction import extract_text
    from dots_data.language import LanguageIdentifier

    languages = LanguageIdentifier()
    texts = {}
    for path in sorted((DATA / "warc").glob("*.warc.gz")):
        for page in read_pages(str(path)):
            if isinstance(page, Page) and (record := page.record_id.strip("<>")) in wanted:
                text = extract_text(page.body, page.url)
                texts[record] = text, languages.identify(text).code
    return texts


def json_lines(name: str) -> list[dict[str, Any]]:
    with open(DATA / "warc" / f"{name}.jsonl", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def signatures(options: argparse.Namespace) -> dict[str, Any]:
    """The tables of benchmarks.signatures, which writes a result of its own."""
    command = [sys.executable, "-m", "benchmarks.signatures", "--input", str(DATA / "text" / "*.jsonl.gz")]
    subprocess.run(command, check=True)
    return {"result": "signatures.json"}


def print_whole(result: dict[str, Any]) -> None:
    rows = []
    for tool in ("ours", "ours_on_part", "datatrove"):
        if one := result.get(tool):
            rows.append(
                (
                    tool.replace("_", " "),
                    one["documents"],
                    f"{one['cpu_seconds']:.0f}",
                    f"{one['wall_seconds']:.0f}",
                    f"{one['megabytes'] / one['cpu_seconds']:.2f}",
                    f"{one['peak_bytes'] / 1e9:.1f}",
                    one["dropped"],
                    f"{one['precision']:.4f}",
                    one["pairs_left"],
                )
            )
    heads = ("tool", "documents", "CPU s", "seconds", "MB a CPU s", "GB", "dropped", "precision", "pairs left")
    console.table("fuzzy deduplication from corpus to survivors", heads, rows, left=1)
    if peer := result.get("datatrove"):
        of = f" (datatrove on the first {peer['documents']:,} documents)"
        console.console.print(
            f"ours is {result['ratio']:.1f}x as fast a CPU second"
            f"{of if peer['documents'] < result['ours']['documents'] else ''}; datatrove's steps: "
            f"{', '.join(f'{k} {v:.0f} s' for k, v in peer['steps'].items())}; pairs at or over the threshold, by "
            f"who dropped one of them: {', '.join(f'{k} {v:,}' for k, v in result['parted'].items())}"
        )
    console.console.print(
        f"pairs at or over the threshold: {result['pairs']:,}; ours, compared again: {result['ours']['verified']}"
    )


def print_growth(result: dict[str, Any]) -> None:
    rows = [
        (
            one["documents"],
            f"{one['cpu_seconds']:.0f}",
            f"{one['wall_seconds']:.0f}",
            f"{one['peak_bytes'] / 1e9:.1f}",
            f"{one['shuffle_bytes'] / one['documents']:,.0f}",
        )
        for one in result["lines"]
    ]
    console.table("growth", ("documents", "CPU s", "seconds", "GB", "shuffle bytes a document"), rows, left=0)
    console.console.print(said(result["crawl"]))


def print_groups(result: dict[str, Any]) -> None:
    console.table("groups of byte-identical pages", ("end", "groups"), list(result["equal_pages"].items()), left=1)
    rows = [(one["kind"], one["outcome"], one["groups"]) for one in result["same_url"]]
    console.table("groups of pages of one URL", ("kind", "end", "groups"), rows, left=2)
    for group in result["defects"]:
        console.console.print(f"defect: several survivors: {[row['record_id'] for row in group]}")


def print_facts(result: dict[str, Any]) -> None:
    console.table("facts", ("what", "value"), list(result.items()), left=1)


PRINT: dict[str, Callable[[dict[str, Any]], None]] = {
    "whole": print_whole,
    "growth": print_growth,
    "groups": print_groups,
    "real": print_facts,
    "signatures": lambda result: None,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dedup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to run (default: all; groups with --output)")
    parser.add_argument("--documents", type=int, default=200_000, help="of the corpus (default: %(default)s)")
    parser.add_argument("--peer-documents", type=int, help="of the corpus that datatrove is given (default: all)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="of datatrove")
    parser.add_argument("--output", help="of a crawl-clean run over the real pages")
    options = parser.parse_args()
    parts = options.only or [part for part in PARTS if part != "groups" or options.output]
    for part in parts:
        result = globals()[part](options)
        PRINT[part](result)
        facts = {"date": datetime.date.today().isoformat(), "python": platform.python_version()}
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results[part] = {**facts, "processor": platform.processor() or platform.machine(), **result}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
