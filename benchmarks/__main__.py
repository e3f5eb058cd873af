"""`make bench`: each fast path beside the library it stands in for, on the same input, in one run.

    python -m benchmarks [--input 'crawl/*.warc.gz']

Figures are CPU seconds of one process, so that a busy machine matters less; what counts is the ratio within a run.
Beside each speed stands what was equal. The table is printed and written to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dots_data import console
from dots_data.crawl.sample import write_sample
from dots_data.crawl.sources import Source, expand
from dots_data.crawl.warc import Page, read_pages

RESULTS = Path(__file__).parent / "results"


class Line(NamedTuple):
    """One comparison: units a CPU second of both sides, their ratio, and what was the same."""

    step: str
    ours: str
    peer: str
    unit: str
    our_rate: float
    peer_rate: float
    ratio: float
    equal: str


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of `work`, and its result."""
    started = time.process_time()
    result = work()
    return max(time.process_time() - started, 1e-9), result


def compare(step: str, ours: str, peer: str, unit: str, amount: float, works: tuple[Any, Any], equal: Any) -> Line:
    """Run both sides, interleaved twice, and keep the better time of each."""
    times: list[list[float]] = [[], []]
    results: list[Any] = [None, None]
    for _ in range(2):
        for side, work in enumerate(works):
            seconds, results[side] = cpu_seconds(work)
            times[side].append(seconds)
    rates = [amount / min(taken) for taken in times]
    return Line(step, ours, peer, unit, rates[0], rates[1], rates[0] / rates[1], equal(*results))


def reading(sources: list[Source]) -> Line:
    """Responses read and decoded, against warcio."""
    from warcio.archiveiterator import ArchiveIterator

    def ours() -> list[int]:
        return [
            item.body_bytes for one in sources for item in read_pages(one.path) if isinstance(item, Page) and item.body
        ]

    def theirs() -> list[int]:
        sizes = []
        for one in sources:
            with open(one.path, "rb") as file:
                for record in ArchiveIterator(file):
                    if record.rec_type == "response" and (body := record.content_stream().read()):
                        sizes.append(len(body))
        return sizes

    pages = len(ours())
    return compare(
        "read WARC",
        "read_pages",
        "warcio",
        "pages/s",
        pages,
        (ours, theirs),
        lambda a, b: f"{len(a):,} and {len(b):,} bodies",
    )


def signing(texts: list[str]) -> Line:
    """2,048 MinHash values from shingle hashes, against datasketch's fastest scheme; equal bit for bit."""
    import numpy as np
    from datasketch import MinHash

    from dots_data.dedup.minhash import minhash, permutations, shingles

    sets = [shingles(text, "en", 5) for text in texts]
    minhash(sets[0], 2048, 1)

    def theirs() -> list[Any]:
        signed = []
        for one in sets:
            made = MinHash(2048, permutations=permutations(2048, 1), scheme="affine32", hashfunc=lambda value: value)
            made.update_batch((one & np.uint64(0xFFFFFFFF)).tolist())
            signed.append(made.hashvalues)
        return signed

    def same(ours: list[Any], others: list[Any]) -> str:
        equal = sum(np.array_equal(a, b) for a, b in zip(ours, others, strict=True))
        return f"{equal:,} of {len(ours):,} equal bit for bit"

    works = (lambda: [minhash(one, 2048, 1) for one in sets], theirs)
    return compare("MinHash, 2,048 values", "numba kernel", "datasketch affine32", "docs/s", len(sets), works, same)


def encoding(texts: list[str]) -> Line:
    """Text to token ids with one tokenizer.json, against Hugging Face tokenizers."""
    import numpy as np

    from dots_data.tokens.tokenizer import Fastokens, HuggingFace, TokenizerConfig, train

    content = train(texts, TokenizerConfig())
    ours, theirs = Fastokens(content), HuggingFace(content)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    works = (lambda: ours.encode(texts), lambda: theirs.encode(texts))

    def same(a: Any, b: Any) -> str:
        return f"{len(a[0]):,} and {len(b[0]):,} ids, {'all' if np.array_equal(a[0], b[0]) else 'NOT all'} equal"

    return compare("encode", "fastokens", "HF tokenizers", "MB/s", megabytes, works, same)


def texts_of(sources: list[Source], most: int) -> list[str]:
    """Extracted texts of the first pages, as input of the later comparisons."""
    from dots_data.extraction import extract_text

    texts: list[str] = []
    for one in sources:
        for item in read_pages(one.path):
            if (
                isinstance(item, Page)
                and item.status == 200
                and item.content_type == "text/html"
                and len(item.body) < 1 << 18
            ):
                text = extract_text(item.body, item.url)
                texts += [text] if len(text) > 500 else []
            if len(texts) == most:
                return texts
    return texts


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    arguments.add_argument("--input", nargs="+", help="WARC files (default: the sample crawl)")
    options = arguments.parse_args()
    sample = Path("build/bench/crawl")
    if not options.input and not (sample / "truth.jsonl").exists():
        write_sample(sample)
    sources = expand(options.input or [str(sample)])[:4]
    texts = texts_of(sources, most=300)
    lines = [reading(sources), signing(texts), encoding(texts)]
    columns = ("step", "ours", "peer", "unit", "ours a CPU s", "peer a CPU s", "ratio", "equal")
    console.table("benchmarks", columns, lines, left=4)
    RESULTS.mkdir(exist_ok=True)
    result = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        "input": [one.name for one in sources],
        "lines": [line._asdict() for line in lines],
    }
    (RESULTS / "data.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
