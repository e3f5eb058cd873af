"""`make bench-kills`: dumps against a living index, killed wherever something is written: what must be the same.

    python -m benchmarks.kills --input 'crawl/*.warc.gz' [--dumps N]

The files are taken as so many dumps, one after another. First without interruption, on 2 partitions; then

    partitions   on 1 and on 7, the files of each dump named backwards
    killed       every run gets `kill -9`, with all its processes, in each stage in turn, while its part of the index is
                 written, when that stands unnamed, while the output is written, and between output and index; after
                 each the same command again
    takedown     `dots takedown` killed while it writes, and given again
    at once      all dumps in one run, without an index

The outputs and the documents of the index must be the same bytes; for all dumps at once, the same rows.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dots_data import console
from dots_data.crawl.sources import expand

WORK = Path("build/bench-kills")
RESULTS = Path(__file__).parent / "results" / "kills.json"
TABLES = ("documents", "ledger", "lines", "near")
# A run that is not killed takes minutes; one that never ends must end this.
LONGEST = 1800.0


def dumps_of(files: Sequence[str], count: int) -> dict[str, list[str]]:
    """The files as dumps that sort as they came; neighbours go to different dumps, so that dumps share pages."""
    return {f"dump-{number}": list(files[number::count]) for number in range(count)}


def command(dumps: dict[str, list[str]], output: Path, index: Path | None, partitions: int) -> list[str]:
    """The command line of a run."""
    named = itertools.chain.from_iterable(("--dump", name, *files) for name, files in dumps.items())
    against = ["--index", str(index)] if index else []
    program = [sys.executable, "-m", "pipelines.crawl_clean", "--job", "jobs/crawl-clean.yaml"]
    return [*program, *named, *against, "--output", str(output), "--partitions", str(partitions)]


def run(arguments: Sequence[str]) -> None:
    """Run to the end. Raises RuntimeError with what it said where it fails."""
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=LONGEST)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: ended with {ended.returncode}: {ended.stderr[-2000:]}")


def killed(arguments: Sequence[str], places: Callable[[], Iterable[str]], after: float = 0.1) -> list[str]:
    """Run the command again and again until it ends by itself, and kill it in every place that it comes to.

    `places` tells where it is; `after` so many seconds there it is killed. Returns the places.
    """
    seen: list[str] = []
    while True:
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        new = _come_to(process, places, seen)
        if new is None:
            said = process.communicate(timeout=LONGEST)[1].decode(errors="replace")
            if process.returncode:
                raise RuntimeError(f"after {seen}: ended with {process.returncode}: {said[-2000:]}")
            return seen
        time.sleep(after)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        seen.append(new)


def _come_to(process: subprocess.Popen[bytes], places: Callable[[], Iterable[str]], seen: Sequence[str]) -> str | None:
    """The first place that the process comes to and has not been killed in; None once it has ended."""
    deadline = time.monotonic() + LONGEST
    while process.poll() is None and time.monotonic() < deadline:
        if new := next((place for place in places() if place not in seen), None):
            return new
        time.sleep(0.005)
    return None


def places_of(output: Path, index: Path) -> Iterator[str]:
    """Where a run is, by what lies on the disk and is not committed."""
    for stages in output.glob("work/stages-*"):
        for folder in sorted(stages.iterdir()):
            if folder.is_dir() and not folder.with_name(f"{folder.name}.json").exists():
                yield folder.name
    named = (index / "index.json").read_text() if (index / "index.json").exists() else ""
    for part in (index / "runs").glob("*"):
        if part.name.startswith("."):
            yield "index"
        elif part.name not in named:
            yield "index, whole and unnamed"
            for table in TABLES:
                if (output / table).is_dir() and not (output / "summary.json").exists():
                    yield f"write {table}"
            if (output / "summary.json").exists():
                yield "between output and index"


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of all tables of an output, or of an export."""
    files = sorted(path for table in TABLES for path in (folder / table).glob("*.parquet"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def exported(index: Path, target: Path) -> dict[str, bytes]:
    """The documents that an index keeps, as one sorted table's bytes."""
    shutil.rmtree(target, ignore_errors=True)
    run([sys.executable, "-m", "dots_data.cli", "index", str(index), "--export", str(target)])
    table = pq.read_table(target / "documents").sort_by("doc_id")
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return {"documents": sink.getvalue().to_pybytes()}


def rows(outputs: Iterable[Path], table: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The rows of several outputs by their place, without what counts the copies that were seen so far."""
    found = {}
    for output in outputs:
        for row in pq.read_table(output / table).to_pylist():
            if table == "ledger":
                row.pop("measures")
                if row["rule"] == "identity.copies":
                    row.pop("value")
            found[tuple(row[name] for name in ("doc_id", "warc_file", "warc_offset", "warc_index"))] = row
    return found


def sequence(
    dumps: dict[str, list[str]], name: str, partitions: int, backwards: bool = False, kill: bool = False
) -> tuple[list[Path], Path, dict[str, list[str]]]:
    """All dumps one after another: the outputs, the index, and by dump where its runs were killed."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    index, outputs, kills = folder / "index", [], {}
    for dump, files in dumps.items():
        output = folder / dump
        arguments = command({dump: files[::-1] if backwards else files}, output, index, partitions)
        if kill:
            kills[dump] = killed(arguments, partial(places_of, output, index))
        else:
            run(arguments)
        outputs.append(output)
        console.console.print(f"{name}: {dump} done{f', killed {len(kills[dump])} times' if kill else ''}")
    return outputs, index, kills


def take_down(index: Path, url: str, kill: bool) -> list[str]:
    """Take a page down; the places where that was killed."""
    arguments = [sys.executable, "-m", "dots_data.cli", "takedown", url, "--index", str(index)]
    if not kill:
        run(arguments)
        return []
    before = {part.name for part in (index / "runs").iterdir()}

    def places() -> Iterator[str]:
        for part in (index / "runs").iterdir():
            if part.name not in before:
                yield "writing" if part.name.startswith(".") else "whole and unnamed"

    return killed(arguments, places, after=0.0)


def survivor_of_many(output: Path) -> str:
    """The address of the kept page for which most others of its dump were dropped; ties by address."""
    counts: dict[str, int] = {}
    ledger = pq.read_table(output / "ledger", columns=["doc_id", "url", "decision", "duplicate_of"]).to_pylist()
    for row in ledger:
        if row["duplicate_of"]:
            counts[row["duplicate_of"]] = counts.get(row["duplicate_of"], 0) + 1
    kept = [(-counts.get(row["doc_id"], 0), row["url"]) for row in ledger if row["decision"] == "kept"]
    return str(min(kept)[1])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", nargs="+", required=True, help="WARC files")
    parser.add_argument("--dumps", type=int, default=3, help="how many dumps to take them as (default: %(default)s)")
    options = parser.parse_args()
    dumps = dumps_of([source.path for source in expand(options.input)], options.dumps)

    plain, index, _ = sequence(dumps, "plain", 2)
    expected = [content(output) for output in plain], exported(index, WORK / "plain" / "all")
    lines: list[tuple[str, str, bool]] = []
    for partitions in (1, 7):
        outputs, other, _ = sequence(dumps, f"partitions-{partitions}", partitions, backwards=True)
        found = [content(output) for output in outputs], exported(other, other.parent / "all")
        lines.append((f"{partitions} partitions, files backwards", "bytes", found == expected))
    outputs, other, kills = sequence(dumps, "killed", 7, kill=True)
    found = [content(output) for output in outputs], exported(other, other.parent / "all")
    lines.append((f"killed {sum(map(len, kills.values()))} times", "bytes", found == expected))

    url = survivor_of_many(plain[0])
    take_down(index, url, kill=False)
    kills["takedown"] = take_down(other, url, kill=True)
    after = [exported(one, one.parent / "all") for one in (index, other)]
    same = after[0] == after[1] and after[0] != expected[1]
    lines.append((f"takedown, killed {len(kills['takedown'])} times", "bytes", same))

    whole = WORK / "at-once"
    shutil.rmtree(whole, ignore_errors=True)
    run(command(dumps, whole, None, 2))
    for table in ("documents", "ledger"):
        lines.append((f"dumps at once: {table}", "rows", rows([whole], table) == rows(plain, table)))

    console.table("the same as without interruption", ("what", "compared", "equal"), lines, left=2)
    for name, found_in in kills.items():
        console.console.print(f"{name} was killed in: {', '.join(found_in)}")
    facts = {"date": datetime.date.today().isoformat(), "files": sum(map(len, dumps.values())), "kills": kills}
    equal = [{"what": what, "compared": how, "equal": same} for what, how, same in lines]
    RESULTS.write_text(json.dumps({**facts, "results": equal}, indent=1) + "\n")
    return 0 if all(same for *_, same in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
