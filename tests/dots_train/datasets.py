"""Small datasets of shards for the tests of the loader."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from dots_data.tokens import manifest, shards
from dots_data.tokens.manifest import Manifest, Recipe, TokenizerInfo
from dots_data.tokens.shards import PROVENANCE, Documents, Header, record_batch

Tables = list[list[list[int]]]  # shards of batches of lengths of documents, EOS included
TABLES: Tables = [[[5, 1, 40, 3], [1]], [[17], [2, 2, 2, 90, 11], [30]], [[64, 7]]]


def write_dataset(
    folder: Path, tables: Tables, sources: list[str] | None = None, tokenizer: bytes = b"{}"
) -> list[list[int]]:
    """A dataset whose tokens count up from 1 (EOS is 0), so that each names its place; the documents. `sources` names
    that of each shard.
    """
    info = TokenizerInfo("tokenizer.json", hashlib.sha256(tokenizer).hexdigest(), 60_000, "<eos>", 0, None, {})
    (folder / "tokenizer.json").write_bytes(tokenizer)
    documents: list[list[int]] = []
    entries, following = [], 1
    for number, table in enumerate(tables):
        header = Header(info, sources[number] if sources else "crawl", None, "job", 0)
        batches, names, lengths = [], [], []
        for sizes in table:
            rows = []
            for size in sizes:
                rows.append([*range(following, following + size - 1), 0])
                following += size - 1
            ids = [(len(documents) + i).to_bytes(16, "big") for i in range(len(rows))]
            documents += rows
            batches.append(
                record_batch(
                    Documents(
                        np.array([token for row in rows for token in row], np.uint16),
                        np.cumsum([0, *sizes], dtype=np.int64),
                        pa.array(ids, pa.binary(16)),
                        np.zeros(len(rows), np.uint8),
                    ),
                    header,
                )
            )
            names += [one.hex() for one in ids]
            lengths += sizes
        nothing = {field.name: pa.nulls(len(names), field.type) for field in PROVENANCE}
        origin = pa.table({**nothing, "doc_id": names, "tokens": lengths}, schema=PROVENANCE)
        entries.append(shards.write_shard(folder, f"shard-{number:05d}", batches, origin, header))
    rows_, tokens = sum(entry.rows for entry in entries), sum(entry.tokens for entry in entries)
    whole = Manifest(info, "uint16", Recipe(None, "job"), 0, rows_, tokens, shards.sources_of(entries), tuple(entries))
    manifest.write(folder, whole)
    return documents
