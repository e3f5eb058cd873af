"""Other tools' MinHash signatures for `benchmarks.signatures`, each in the environment that has it.

    python benchmarks/peers/signatures.py TOOL BANDS ROWS LANGUAGE < texts.jsonl

A line in is a text as JSON; out comes `{"cpu_seconds": ..., "version": ...}`: from texts in memory to a signature of
each, models loaded before.

    datatrove   MinhashDedupSignature as it is, with the tokenizer of the language; it writes its signatures to files
    datasketch  jieba's words for Chinese, else those between spaces; MinHash by the fastest of its schemes
    rensa       the same words; RMinHash
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

Signer = Callable[[Sequence[str]], Any]

# Our language tags and the codes that datatrove's tokenizers are listed under.
CODES = {"en": "eng", "zh": "zho", "de": "deu"}
NGRAM = 5


def datatrove(bands: int, rows: int, language: str) -> Signer:
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
    from loguru import logger

    logger.remove()
    config = MinhashConfig(n_grams=NGRAM, num_buckets=bands, hashes_per_bucket=rows)

    def sign(texts: Sequence[str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            step = MinhashDedupSignature(folder, config, language=CODES[language])
            step.run(Document(text=text, id=str(number)) for number, text in enumerate(texts))

    return sign


def datasketch(bands: int, rows: int, language: str) -> Signer:
    from datasketch import MinHash

    empty = MinHash(bands * rows, scheme="affine32")

    def sign(texts: Sequence[str]) -> list[Any]:
        signed = []
        for text in texts:
            one = empty.copy()
            one.update_batch([gram.encode() for gram in grams(text, language)])
            signed.append(one.digest())
        return signed

    return sign


def rensa(bands: int, rows: int, language: str) -> Signer:
    from rensa import RMinHash

    def sign(texts: Sequence[str]) -> list[Any]:
        signed = []
        for text in texts:
            one = RMinHash(num_perm=bands * rows, seed=1)
            one.update(list(grams(text, language)))
            signed.append(one.digest())
        return signed

    return sign


def grams(text: str, language: str) -> set[str]:
    """The different n-grams of the words of a text in lower case without punctuation."""
    text = re.sub(r"[^\w\s]+|_", "", text).lower()
    if language == "zh":
        import jieba

        jieba.setLogLevel("WARNING")
        words = [word for word in jieba.cut(text) if not word.isspace()]
    else:
        words = text.split()
    return {" ".join(words[i : i + NGRAM]) for i in range(max(1, len(words) - NGRAM + 1))}


def main() -> int:
    tool, bands, rows, language = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    texts = [json.loads(line) for line in sys.stdin]
    sign = {"datatrove": datatrove, "datasketch": datasketch, "rensa": rensa}[tool](bands, rows, language)
    sign(["A few words are enough to load what there is to load. 几个字就够了。"] * 2)
    started = time.process_time()
    sign(texts)
    print(json.dumps({"cpu_seconds": time.process_time() - started, "version": version(tool)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
