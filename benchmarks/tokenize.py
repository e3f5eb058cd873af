"""`make bench-tokenize`: from documents to shuffled shards of tokens, beside datatrove; the encoders alone; equal ids.

    python -m benchmarks.tokenize [--vocabulary N] [--copies N]

English and Chinese apart, with one tokenizer.json, trained here on all texts:

    encode   the texts alone: fastokens, as `tokenize` drives it, when it meets each text for the first time (it
             remembers words) and when it meets them again, and Hugging Face tokenizers
    job      from Parquet to shuffled shards: `pipelines.tokenize --workers 0`, and datatrove's DocumentTokenizer and
             DocumentTokenizerMerger as one task. Both take seconds whatever their input: to load the tokenizer, and
             ours to encode a sample of 2 MB by both encoders. So each runs on 2.5 MB of the texts and on all, and the
             rate "beyond" is that of what the larger job has more: the rate of large jobs. Then on several copies of
             the texts, under other ids, where fastokens meets every word again

Ids are compared with those of Hugging Face tokenizers for every document, as read back from the shards. CPU seconds are
those of all processes of a tool, watched from outside.
"""

from __future__ import annotations

import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from benchmarks.texts import Text, real_texts, save_result
from benchmarks.usage import watched
from dots_data import console
from dots_data.tokens import manifest, tokenizer
from dots_data.tokens.tokenizer import ENDOFTEXT, Fastokens, HuggingFace, TokenizerConfig

WORK = Path("build/bench-tokenize")
PEER = (Path("build/peers/datatrove-tokens/bin/python"), Path(__file__).parent / "peers" / "datatrove_tokenize.py")
TOGETHER = 512  # documents that an encoder is given at once
SMALL = 2_500_000  # bytes of text in the job that tells what every job takes
LANGUAGES = {"en": "English", "zh": "Chinese"}


def texts_of(language: str) -> list[Text]:
    """The texts that say that they are of this language."""
    return [
        Text(name.partition(".")[0], language, row["text"])
        for name, rows in real_texts()
        for row in rows
        if row["lang"].partition("-")[0] == language and row["text"]
    ]


def make_tokenizer(texts: list[str], vocabulary: int) -> Path:
    """A tokenizer.json with dots.llm1's pattern and special tokens, trained once on all texts."""
    path = WORK / f"tokenizer-{vocabulary}.json"
    if not path.exists():
        content = tokenizer.train(texts, TokenizerConfig(vocab_size=vocabulary))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path


def write_documents(texts: list[str], copies: int, folder: Path) -> Path:
    """The texts as crawl-clean leaves documents, `copies` times, each under an id of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for copy in range(copies):
        ids = [hashlib.blake2b(f"{copy}/{n}".encode(), digest_size=16).hexdigest() for n in range(len(texts))]
        urls = [f"https://example.org/{copy}/{n}" for n in range(len(texts))]
        table = pa.table({"doc_id": ids, "url": urls, "text": texts})
        pq.write_table(table, folder / f"part-{copy:05d}.parquet", compression="zstd", row_group_size=4096)
    return folder


def encoders(content: bytes, texts: list[str]) -> tuple[dict[str, float], list[bytes]]:
    """CPU seconds of each encoder on all texts, and a digest of the reference's ids for each text."""
    batches = [pa.array(texts[at : at + TOGETHER], pa.large_string()) for at in range(0, len(texts), TOGETHER)]
    fast, reference = Fastokens(content), HuggingFace(content)
    seconds: dict[str, float] = {}
    digests: dict[str, list[bytes]] = {}
    for name, encoder in (("first", fast), ("again", fast), ("reference", reference)):
        encoder.encode(["warm up"])
        started = time.process_time()
        encoded = [encoder.encode(batch) for batch in batches]
        seconds[name] = time.process_time() - started
        digests[name] = [
            digest(ids[start:stop])
            for ids, borders in encoded
            for start, stop in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True)
        ]
    if digests["first"] != digests["reference"] or digests["again"] != digests["reference"]:
        raise RuntimeError("fastokens gives other ids than Hugging Face tokenizers")
    return seconds, digests["reference"]


def megabytes(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def digest(ids: np.ndarray) -> bytes:
    return xxhash.xxh3_128_digest(np.ascontiguousarray(ids, dtype="<u4"))


def run(command: list[str], output: Path) -> float:
    """CPU seconds of a command and its descendants; what it says goes to OUTPUT.log."""
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    log = output.with_suffix(".log")
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        usage = watched(psutil.Process(process.pid), lambda: process.poll() is None)
    if process.returncode:
        raise RuntimeError(f"{command[1]} ended with {process.returncode}; its log is {log}")
    return usage.cpu_seconds


def ours(folder: Path, content: Path, output: Path, workers: int = 0) -> float:
    """`make tokenize` with this tokenizer."""
    arguments = ["--input", str(folder), "--output", str(output), "--tokenizer", str(content)]
    return run([sys.executable, "-m", "pipelines.tokenize", *arguments, "--workers", str(workers)], output)


def theirs(folder: Path, content: Path, output: Path) -> float:
    """datatrove's two steps."""
    return run([*map(str, PEER), str(folder.resolve()), str(output.resolve()), str(content), ENDOFTEXT], output)


def documents_of(output: Path) -> Iterator[tuple[bytes, np.ndarray]]:
    """Id and token ids, without EOS, of every document in the shards."""
    for shard in manifest.read(output).shards:
        with pa.memory_map(str(output / shard.file)) as file:
            table = pa.ipc.open_file(file).read_all()
            for batch in table.to_batches():
                tokens = batch.column("tokens")
                values, borders = tokens.values.to_numpy(), tokens.offsets.to_numpy()
                for row, doc_id in enumerate(batch.column("doc_id").to_pylist()):
                    yield doc_id, values[borders[row] : borders[row + 1] - 1]


def equal_documents(output: Path, expected: list[bytes], copies: int) -> int:
    """How many documents of the shards have the reference's ids; each must be there once."""
    by_id = {
        hashlib.blake2b(f"{copy}/{n}".encode(), digest_size=16).digest(): one
        for copy in range(copies)
        for n, one in enumerate(expected)
    }
    return sum(by_id.pop(doc_id, b"") == digest(ids) for doc_id, ids in documents_of(output))


def tokens_of_peer(output: Path, width: int) -> int:
    return sum(path.stat().st_size for path in (output / "merged").glob("*.ds")) // width


def jobs(language: str, texts: list[str], expected: list[bytes], content: Path, copies: int) -> dict[str, Any]:
    """Both tools on a few of the texts, on all, and on copies of all."""
    few = int(np.searchsorted(np.cumsum([len(text.encode()) for text in texts]), SMALL)) + 1
    result: dict[str, Any] = {}
    for name, count, some in (("small", 1, texts[:few]), ("once", 1, texts), ("copies", copies, texts)):
        folder = write_documents(some, count, WORK / language / name)
        output = WORK / language / f"ours-{name}"
        result[name] = {"megabytes": megabytes(some) * count, "documents": len(some) * count}
        result[name]["ours"] = ours(folder, content, output)
        if name == "once":
            result[name]["ours_ray_of_2"] = ours(folder, content, WORK / language / "ours-ray", workers=2)
            shards = [(output.parent / which / "manifest.json").read_bytes() for which in ("ours-once", "ours-ray")]
            if shards[0] != shards[1]:
                raise RuntimeError("the number of workers changed the dataset")
        result[name]["equal"] = equal_documents(output, expected, count)
        if PEER[0].exists():
            peer = WORK / language / f"datatrove-{name}"
            result[name]["datatrove"] = theirs(folder, content, peer)
            dataset = manifest.read(output)
            result[name]["tokens"] = dataset.tokens
            result[name]["datatrove_tokens"] = tokens_of_peer(peer, manifest.DTYPES[dataset.dtype])
    return result


def measure(language: str, texts: list[str], content: Path, copies: int) -> dict[str, Any]:
    seconds, expected = encoders(content.read_bytes(), texts)
    result = {"documents": len(texts), "megabytes": megabytes(texts), "encode": seconds}
    return result | {"jobs": jobs(language, texts, expected, content, copies)}


def rates(jobs_: dict[str, Any]) -> dict[str, dict[str, float]]:
    """CPU seconds of the small job by tool, and MB a CPU second: beyond the small job, on the texts, on the copies."""
    small, once, most = (jobs_[name] for name in ("small", "once", "copies"))
    return {
        tool: {
            "small": small[tool],
            "beyond": (once["megabytes"] - small["megabytes"]) / (once[tool] - small[tool]),
            "once": once["megabytes"] / once[tool],
            "copies": most["megabytes"] / most[tool],
        }
        for tool in ("ours", "datatrove")
        if tool in once
    }


def show(results: dict[str, dict[str, Any]], copies: int) -> None:
    rows, lines = [], []
    for language, one in results.items():
        speeds = {name: one["megabytes"] / seconds for name, seconds in one["encode"].items()}
        ratio = speeds["first"] / speeds["reference"]
        rows.append(
            (
                LANGUAGES[language],
                f"{one['megabytes']:.1f}",
                *(f"{value:.2f}" for value in speeds.values()),
                f"{ratio:.1f}x",
            )
        )
        for tool, rate in one["rates"].items():
            lines.append((LANGUAGES[language], tool, *(f"{value:.2f}" for value in rate.values())))
        if one.get("ratios"):
            lines.append((LANGUAGES[language], "ratio", "", *(f"{value:.1f}x" for value in one["ratios"].values())))
    console.table(
        "encode alone, MB a CPU second",
        ("texts", "MB", "fastokens, first", "again", "HF tokenizers", "first to HF"), rows, left=1,
    )  # fmt: skip
    heads = ("texts", "tool", "small job, CPU s", "MB a CPU s beyond it", "texts once", f"{copies} copies")
    console.table("Parquet to shuffled shards", heads, lines, left=2)
    for language, one in results.items():
        ray = one["jobs"]["once"]["ours_ray_of_2"]
        console.console.print(f"{LANGUAGES[language]}, once, with Ray and 2 workers: {ray:.1f} CPU s, the same dataset")
        for name, measured in one["jobs"].items():
            of = f"{measured['equal']:,} of {measured['documents']:,} documents"
            told = f"{LANGUAGES[language]}, {name}: ids equal to those of HF tokenizers on {of}"
            if "tokens" in measured:
                told += f"; {measured['tokens']:,} tokens, datatrove {measured['datatrove_tokens']:,}"
            console.console.print(told)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tokenize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", type=int, default=152_064, help="of the tokenizer (default: %(default)s)")
    parser.add_argument("--copies", type=int, default=3, help="of the texts in the largest job (default: %(default)s)")
    options = parser.parse_args()
    texts = {language: texts_of(language) for language in LANGUAGES}
    content = make_tokenizer([one.text for some in texts.values() for one in some], options.vocabulary)
    results = {}
    for language, some in texts.items():
        one = measure(language, [text.text for text in some], content, options.copies)
        one["rates"] = rates(one["jobs"])
        if "datatrove" in one["rates"]:
            mine, peer = one["rates"]["ours"], one["rates"]["datatrove"]
            one["ratios"] = {name: mine[name] / peer[name] for name in ("beyond", "once", "copies")}
        results[language] = one
    show(results, options.copies)
    save_result("tokenize", [one for some in texts.values() for one in some], **vars(options), languages=results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
