"""datatrove's tokenization and shuffle for `benchmarks.tokenize`, in the environment that has it.

    python benchmarks/peers/datatrove_tokenize.py INPUT OUTPUT TOKENIZER EOS

INPUT is a folder of Parquet files with `doc_id` and `text`. DocumentTokenizer writes its documents, shuffled within a
file, to OUTPUT/tokenized/, and DocumentTokenizerMerger all of them, shuffled again, to OUTPUT/merged/: the two steps of
datatrove's own examples, as one task in one process. Prints datatrove's version.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path


def main() -> int:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.tokens.merger import DocumentTokenizerMerger

    source, output, tokenizer, eos = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    tokenized, merged = str(output / "tokenized"), str(output / "merged")
    read = ParquetReader(source, id_key="doc_id", read_metadata=False)
    encode = DocumentTokenizer(tokenized, tokenizer, eos_token=eos, seed=0)
    merge = DocumentTokenizerMerger(tokenized, merged, save_filename="tokens", seed=0, progress=False)
    for name, pipeline in (("encode", [read, encode]), ("merge", [merge])):
        LocalPipelineExecutor(pipeline, tasks=1, workers=1, logging_dir=str(output / "logs" / name)).run()
    print(version("datatrove"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
