"""Reads an export with the tool that it is for, and prints the documents or windows as JSON. Not a test: run with the
packages of `make export-readers` on the path.

    python export_readers.py megatron|datatrove|mds FOLDER-OF-A-SOURCE TOKEN-BYTES
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any


def megatron(folder: Path, width: int) -> Any:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(str(folder / "tokens"))
    assert dataset.document_indices.tolist() == list(range(len(dataset) + 1))
    return [dataset[i].tolist() for i in range(len(dataset))]


def datatrove(folder: Path, width: int) -> Any:
    from datatrove.utils.dataset import DatatroveFolderDataset

    dataset = DatatroveFolderDataset(str(folder), 7, "*.ds", token_size=width, return_positions=True)
    return [[dataset[i]["input_ids"].tolist(), dataset[i]["positions"].tolist()] for i in range(len(dataset))]


def mds(folder: Path, width: int) -> Any:
    # The package itself imports what it needs for pictures; its readers do not.
    package = types.ModuleType("streaming")
    package.__path__ = [str(Path(path) / "streaming") for path in sys.path if (Path(path) / "streaming").is_dir()]
    sys.modules["streaming"] = package
    from streaming.base.local import LocalDataset

    dataset = LocalDataset(str(folder))
    return [[dataset[i]["doc_id"], dataset[i]["tokens"].tolist()] for i in range(len(dataset))]


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
