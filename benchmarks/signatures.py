"""MinHash signatures from texts: their speed beside other tools', and that they are datasketch's.

    python -m benchmarks.signatures --input 'texts/*.jsonl.gz' [--megabytes N]

Speed: megabytes of text (UTF-8) a CPU second of one process, from texts in memory to a signature of each: normalised,
divided into words, 5-grams, MinHash values, bands. The tools run interleaved on the same texts, the better of two runs
each, with the report's 128 bands of 16 rows and with datatrove's 14 of 8. What each does for a signature stands in
benchmarks/peers/signatures.py; a tool whose environment is not there is left out. The environments:

    infra/peer.sh datatrove-dedup datatrove==0.10.1 'spacy==3.8.*' tokenizers regex nltk jieba 'xxhash<4' orjson
    infra/peer.sh rensa rensa==0.5.0 jieba

Equal: texts whose shingles are as many as their different 5-grams of words, and whose MinHash values are those that
datasketch makes of the same shingles.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.texts import save_result, texts_of
from dots_data import console
from dots_data.dedup import minhash
from dots_data.dedup.minhash import FuzzyConfig
from dots_data.text import shingle_words

PEERS = Path(__file__).parent / "peers" / "signatures.py"
# Each tool and the Python that has it.
TOOLS = {
    "datatrove": "build/peers/datatrove-dedup/bin/python",
    "datasketch": sys.executable,
    "rensa": "build/peers/rensa/bin/python",
}
SHAPES = ((128, 16), (14, 8))
LANGUAGES = ("en", "de", "zh")
BATCH = 256


def peer_seconds(tool: str, texts: Sequence[str], language: str, bands: int, rows: int) -> dict[str, Any]:
    """What a run of a tool took, and which version it is."""
    command = [TOOLS[tool], str(PEERS), tool, str(bands), str(rows), language]
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    single = os.environ | {"OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True, env=single)
    facts: dict[str, Any] = json.loads(answer.stdout)
    return facts


def our_seconds(texts: Sequence[str], language: str, config: FuzzyConfig) -> float:
    """CPU seconds of the signatures of all texts, in batches as Spark hands them over."""
    batches = [pa.array(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)]
    started = time.process_time()
    for batch in batches:
        minhash.signatures(batch, [language] * len(batch), config)
    return time.process_time() - started


def speeds(texts: Sequence[str], language: str, bands: int, rows: int) -> list[dict[str, Any]]:
    """A line for us and for each tool that is there."""
    config = FuzzyConfig(bands=bands, rows=rows)
    tools = [tool for tool, python in TOOLS.items() if Path(python).exists()]
    our_seconds(texts[:1], language, config)
    taken: dict[str, list[float]] = {}
    versions = {}
    for _ in range(2):
        taken.setdefault("ours", []).append(our_seconds(texts, language, config))
        for tool in tools:
            facts = peer_seconds(tool, texts, language, bands, rows)
            taken.setdefault(tool, []).append(facts["cpu_seconds"])
            versions[tool] = facts["version"]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    return [
        {
            "language": language,
            "bands": bands,
            "rows": rows,
            "texts": len(texts),
            "megabytes": megabytes,
            "tool": tool,
            "version": versions.get(tool),
            "megabytes_per_cpu_second": megabytes / min(seconds),
            "ratio": min(seconds) / min(taken["ours"]),
        }
        for tool, seconds in taken.items()
    ]


def equal(texts: Sequence[str], language: str) -> int:
    """How many texts have the shingles of their words and the MinHash values of datasketch."""
    from datasketch import MinHash

    config, same = FuzzyConfig(), 0
    count = config.bands * config.rows
    constants = minhash.permutations(count, config.seed)
    for text in texts:
        words = shingle_words(text, language)
        grams = {tuple(words[i : i + config.ngram]) for i in range(max(1, len(words) - config.ngram + 1))} - {()}
        found = minhash.shingles(text, language, config.ngram)
        theirs = MinHash(count, permutations=constants, scheme="affine32", hashfunc=lambda value: value)
        theirs.update_batch((found & np.uint64(0xFFFFFFFF)).tolist())
        values = minhash.minhash(found, count, config.seed)
        same += len(grams) == len(found) and np.array_equal(values, theirs.hashvalues)
    return same


def sample(texts: Sequence[str], megabytes: float) -> list[str]:
    """Every n-th text, so that all sources have their share, of about so many megabytes."""
    total = sum(len(text.encode()) for text in texts)
    return list(texts[:: max(1, round(total / (megabytes * 1e6)))])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.signatures", description=__doc__)
    parser.add_argument("--input", nargs="+", required=True, help="WARC files, JSON lines, parquet; globs")
    parser.add_argument("--most", type=int, help="texts of a file at most (default: all)")
    parser.add_argument("--megabytes", type=float, default=3, help="of text, each language (default: %(default)s)")
    options = parser.parse_args()
    texts = [text for path in options.input for text in texts_of(path, options.most)]
    lines, kept = [], []
    for language in LANGUAGES:
        some = sample([text.text for text in texts if text.language == language], options.megabytes)
        if some:
            lines += [line for bands, rows in SHAPES for line in speeds(some, language, bands, rows)]
            kept.append({"language": language, "texts": len(some), "equal": equal(some, language)})
    console.table(
        "signatures",
        ("language", "bands x rows", "tool", "MB a CPU s", "ours is faster"),
        [
            (
                line["language"],
                f"{line['bands']} x {line['rows']}",
                line["tool"],
                f"{line['megabytes_per_cpu_second']:.2f}",
                f"{line['ratio']:.1f}x",
            )
            for line in lines
        ],
        left=3,
    )
    console.table("equal to datasketch", ("language", "texts", "equal"), [tuple(one.values()) for one in kept], left=1)
    save_result("signatures", texts, speed=lines, equal=kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
