"""`make bench-loader`: random windows from loaders side by side, on the same tokens; and how large a dataset opens.

    python -m benchmarks.loader [--tokens N] [--length S] [--seconds T]

Each tool reads in a process of its own, one thread, from a warm page cache, and takes turns with the others; the better
of two turns counts. A window is read when it stands in a row of an int64 batch; "batches" are whole ones of 8 rows,
with targets and positions, where the tool makes them. Which format each has, and what it does for a window, stands in
benchmarks/peers/loader.py; a tool whose environment is not there is left out (Makefile). Tokens are random ids of the
vocabulary of 152,064, documents of log-normal length: what they mean does not matter here.

The second table opens a manifest of 10,000 shards and 10 billion windows, whose shards need not be there for it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.peers.loader import ROWS
from benchmarks.texts import save_result
from dots_data import console
from dots_data.tokens import manifest, shards
from dots_data.tokens.batches import Batches
from dots_data.tokens.manifest import Companion, Manifest, Recipe, Shard, Span, TokenizerInfo
from dots_data.tokens.shards import PROVENANCE, Documents, Header, record_batch

PEERS = Path(__file__).parent / "peers" / "loader.py"
FOLDER = Path("build/bench/loader")
TOOLS = {
    "dots": sys.executable,
    "floor": sys.executable,
    **{name: f"build/peers/{name}/bin/python" for name in ("megatron", "datasets", "litdata", "streaming")},
}
INFO = TokenizerInfo("tokenizer.json", "0" * 64, 152_064, "<eos>", 151_643, None, {"<eos>": 151_643})
BATCH_TOKENS = 4 << 20
BIG_SHARDS, BIG_WINDOWS = 10_000, 10**10


def write_tokens(folder: Path, tokens: int) -> None:
    """The stream, the document borders, and our shards of them."""
    random = np.random.default_rng(1)
    lengths = random.lognormal(6.3, 1.2, tokens // 300).astype(np.int64) + 2
    ends = np.cumsum(lengths)
    ends = ends[ends <= tokens]
    stream = random.integers(0, INFO.eos_id, int(ends[-1]), dtype=np.uint32)
    stream[ends - 1] = INFO.eos_id
    borders = np.concatenate([[0], ends])
    stream.astype("<u4").tofile(folder / "tokens.u32")
    borders.astype("<i8").tofile(folder / "borders.i64")
    (folder / "dots").mkdir()
    header = Header(INFO, "random", None, "bench", 1)
    cuts = [*np.searchsorted(borders, np.arange(0, len(stream), BATCH_TOKENS)).tolist(), len(ends)]
    batches, names = [], []
    for first, last in pairwise(cuts):
        ids = [number.to_bytes(16, "big") for number in range(first, last)]
        part = borders[first : last + 1]
        values = stream[part[0] : part[-1]]
        documents = Documents(values, part - part[0], pa.array(ids, pa.binary(16)), np.zeros(len(ids), np.uint8))
        batches.append(record_batch(documents, header))
        names += [one.hex() for one in ids]
    nothing = {field.name: pa.nulls(len(names), field.type) for field in PROVENANCE}
    origin = pa.table({**nothing, "doc_id": names, "tokens": np.diff(borders)}, schema=PROVENANCE)
    entry = shards.write_shard(folder / "dots", "shard-00000", batches, origin, header)
    whole = Manifest(INFO, INFO.dtype, Recipe(None, "bench"), 1, entry.rows, entry.tokens, (), (entry,))
    manifest.write(folder / "dots", sourced(whole))


def sourced(whole: Manifest) -> Manifest:
    """With the sources that its shards have."""
    return Manifest(**{**vars(whole), "sources": shards.sources_of(whole.shards)})


def written(tokens: int, length: int) -> Path:
    """The folder of all formats, made once; a run that breaks off leaves none of the format at hand."""
    folder = FOLDER / f"{tokens}-{length}"
    if not (folder / ".tokens").exists():
        subprocess.run(["rm", "-rf", str(folder)], check=True)
        folder.mkdir(parents=True)
        write_tokens(folder, tokens)
        (folder / ".tokens").touch()
    for tool, python in TOOLS.items():
        if Path(python).exists() and tool not in ("dots", "floor") and not (folder / f".{tool}").exists():
            subprocess.run(["rm", "-rf", str(folder / tool)], check=True)
            run([python, str(PEERS), tool, str(folder), str(length), "write", "0"])
            (folder / f".{tool}").touch()
    return folder


def single() -> dict[str, str]:
    """One thread, and our modules for our own process."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd()), "TOKENIZERS_PARALLELISM": "false"}


def turn(tool: str, folder: Path, length: int, seconds: float) -> dict[str, Any]:
    printed = run([TOOLS[tool], str(PEERS), tool, str(folder), str(length), "read", str(seconds)])
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return result


def run(command: list[str]) -> str:
    """What a process prints."""
    done = subprocess.run(command, capture_output=True, text=True, env=single(), timeout=900)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:4])}: {done.stderr[-2000:]}")
    return done.stdout


def speed(results: list[dict[str, Any]], what: str, length: int) -> float | None:
    """Tokens a CPU second in the better turn."""
    rows = ROWS if what == "batch" else 1
    measured = [one[what] for one in results if one[what]]
    return max((one["windows"] * rows * length / one["cpu"] for one in measured), default=None)


def compare(folder: Path, length: int, seconds: float) -> list[dict[str, Any]]:
    """A line a tool."""
    tools = [tool for tool, python in TOOLS.items() if Path(python).exists()]
    taken: dict[str, list[dict[str, Any]]] = {tool: [] for tool in tools}
    for _ in range(2):
        for tool in tools:
            taken[tool].append(turn(tool, folder, length, seconds))
    lines = []
    ours = taken["dots"][0]
    for tool, results in taken.items():
        tokens, batch = (speed(results, what, length) for what in ("tokens", "batch"))
        assert tokens
        lines.append(
            {
                "tool": tool,
                "version": results[0]["version"],
                "tokens_per_cpu_second": round(tokens),
                "batches_tokens_per_cpu_second": round(batch) if batch else None,
                "start_seconds": round(min(one["open_wall"] for one in results), 4),
                "first_start_seconds": round(results[0]["open_wall"], 4),
                "state_bytes": results[0]["state"],
                "index_bytes": results[0]["index_bytes"],
                "memory_mib": round(min(one["memory"] for one in results) / 2**20, 1),
                "same_windows": results[0]["checksum"] == ours["checksum"],
            }
        )
    return lines


def write_big(folder: Path) -> None:
    """A manifest of a dataset that fills a data centre, and its batch tables; no shards."""
    per_batch = 8 << 20
    count = -(-BIG_WINDOWS * 8192 // BIG_SHARDS // per_batch)
    rows = per_batch // 1000
    length = -(-(4 * per_batch + 40 * rows + 4096) // 64) * 64
    table = np.empty((count, 6), dtype=np.int64)
    table[:, 0] = 1024 + length * np.arange(count)
    table[:, 1:4] = length, rows, per_batch
    table[:, 4] = table[:, 0] + -(-(8 * (rows + 1) + 1024) // 64) * 64
    entries = []
    for number in range(BIG_SHARDS):
        table[:, 5] = number
        beside = Companion(f"shard-{number:05d}.provenance.parquet", 1 << 20, f"{number:032x}")
        entries.append(
            Shard(
                file=f"shard-{number:05d}.arrow",
                source=f"source-{number % 20:02d}",
                job="bench",
                rows=rows * count,
                tokens=per_batch * count,
                bytes=int(table[-1, 0]) + length + 4096,
                xxh3=f"{number:032x}",
                header=Span(8, 1000),
                batches=Batches.of(table),
                provenance=beside,
            )
        )
    total = rows * count * BIG_SHARDS, per_batch * count * BIG_SHARDS
    manifest.write(folder, sourced(Manifest(INFO, INFO.dtype, Recipe(None, "bench"), 1, *total, (), tuple(entries))))


OPEN = """
import json, sys, time
import numpy as np
from dots_train.data import Dataset, Order, Windows

def resident(kind):
    return next(int(l.split()[1]) / 1024 for l in open("/proc/self/status") if l.startswith(kind))

before, own, cpu, wall = resident("VmRSS"), resident("RssAnon"), time.process_time(), time.perf_counter()
windows = Windows(Dataset(sys.argv[1], verify=False).stream(), 8192)
found = {"windows": windows.count, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
found["mib"] = resident("VmRSS") - before
rows = Order(windows.count, 1)(np.arange(1024))
for row in rows.tolist():
    list(windows.stream.pieces(row * 8192, row * 8192 + 8193))
found |= {"found_wall": time.perf_counter() - wall, "found_mib": resident("RssAnon") - own}
print(json.dumps(found))
"""


def open_big() -> dict[str, Any]:
    """What a fresh process takes to open it, and to find the record batches of the first 1,024 samples; best of 3."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        write_big(Path(folder))
        turns = []
        for _ in range(3):
            turns.append(json.loads(run([sys.executable, "-c", OPEN, folder])))
        files = {path.suffix: path.stat().st_size for path in Path(folder).iterdir()}
    best = min(turns, key=lambda one: one["wall"])
    return {
        "shards": BIG_SHARDS,
        "windows": best["windows"],
        "record_batches": files[".i64"] // 48,
        "manifest_mb": round(files[".json"] / 1e6, 1),
        "batch_tables_mb": round(files[".i64"] / 1e6, 1),
        "open_seconds": round(best["wall"], 3),
        "open_cpu_seconds": round(best["cpu"], 3),
        "open_resident_mib": round(max(one["mib"] for one in turns), 1),
        "open_and_find_1024_samples_seconds": round(best["found_wall"], 3),
        "open_and_find_1024_samples_own_mib": round(max(one["found_mib"] for one in turns), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000_000, help="in all (default: %(default)s)")
    parser.add_argument("--length", type=int, default=8192, help="of a window (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="a tool reads at a turn (default: %(default)s)")
    options = parser.parse_args()
    folder = written(options.tokens, options.length)
    lines = compare(folder, options.length, options.seconds)
    ours = lines[0]["tokens_per_cpu_second"]
    columns = ("tool", "version", "M tokens/CPU s", "we are", "batches", "start s", "first s", "state B", "index B")
    columns += ("MiB", "same windows")
    rows = [
        (
            line["tool"],
            line["version"],
            f"{line['tokens_per_cpu_second'] / 1e6:,.0f}",
            f"{ours / line['tokens_per_cpu_second']:,.1f}x",
            f"{line['batches_tokens_per_cpu_second'] / 1e6:,.0f}" if line["batches_tokens_per_cpu_second"] else "",
            line["start_seconds"],
            line["first_start_seconds"],
            line["state_bytes"],
            line["index_bytes"],
            line["memory_mib"],
            "yes" if line["same_windows"] else "no",
        )
        for line in lines
    ]
    console.table(f"random windows of {options.length:,} tokens", columns, rows, left=2)
    big = open_big()
    console.table("opening a large dataset", ("figure", "value"), list(big.items()), left=1)
    save_result("loader", [], tokens=options.tokens, length=options.length, lines=lines, large=big)
    return 0


if __name__ == "__main__":
    sys.exit(main())
