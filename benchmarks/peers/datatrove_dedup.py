"""datatrove's fuzzy deduplication for `benchmarks.dedup`, in the environment that has it.

    python benchmarks/peers/datatrove_dedup.py STEP INPUT OUTPUT FILES WORKERS

INPUT holds the corpus as JSON lines, of which the first FILES files are read. STEP is one of the four of
datatrove/examples/minhash_deduplication.py: signatures, buckets, cluster, filter; with 128 buckets of 16 hashes of 64
bits, word 5-grams, datatrove's English tokenizer and its normalisation. The last one leaves the documents that were
removed in OUTPUT/removed/. Prints datatrove's version.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def main() -> int:
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.typeshelper import Languages

    step, source, output = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    files, workers = int(sys.argv[4]), int(sys.argv[5])
    config = MinhashConfig(
        n_grams=5, num_buckets=128, hashes_per_bucket=16, hash_config=HashConfig(hash_fc="xxhash", precision=64)
    )
    (output / "files.txt").write_text("".join(f"part-{number:03d}.jsonl\n" for number in range(files)))

    def read() -> JsonlReader:
        return JsonlReader(source, paths_file=str(output / "files.txt"))

    signatures, buckets, removed = (str(output / name) for name in ("signatures", "buckets", "remove"))
    steps: dict[str, tuple[list[Any], int]] = {
        "signatures": ([read(), MinhashDedupSignature(signatures, config, language=Languages.english)], files),
        "buckets": ([MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets),
        "cluster": ([MinhashDedupCluster(buckets, removed, config=config)], 1),
        "filter": (
            [
                read(),
                MinhashDedupFilter(removed, exclusion_writer=JsonlWriter(str(output / "removed"), compression=None)),
                JsonlWriter(str(output / "kept"), compression=None),
            ],
            files,
        ),
    }
    pipeline, tasks = steps[step]
    logs = str(output / "logs" / step)
    LocalPipelineExecutor(pipeline, tasks=tasks, workers=min(workers, tasks), logging_dir=logs).run()
    print(version("datatrove"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
