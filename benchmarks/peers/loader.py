"""A loader over the tokens of `make bench-loader`: write them in its own format, then read random windows.

    python benchmarks/peers/loader.py TOOL FOLDER LENGTH write|read SECONDS

FOLDER holds tokens.u32 (the stream) and borders.i64 (where documents begin, and its end). Each tool writes beside them
what it is used with for such training, and gives windows of LENGTH + 1 tokens by number:

    streaming  mosaicml-streaming's StreamingDataset: a sample is a window, cut when it is written (uint32 arrays)
    litdata    StreamingDataset with TokensLoader: chunks of tokens, cut into blocks when read
    datasets   Hugging Face's Dataset on disk, numpy format: a row is a window, cut when it is written
    megatron   megatron-core's GPTDataset over its IndexedDataset (.bin, .idx): its own sample and shuffle indices
    dots       this project's shards
    floor      no loader: slices of a flat memory map, without documents, order or files; what copying alone costs

Printed as JSON: seconds from the end of imports to the first window; windows read in the time given, at random places
(CPU and wall seconds); the same for whole batches of ROWS where the tool makes them (targets, positions); bytes of the
state that a checkpoint holds and of index files; anonymous memory above what the imports took; and a checksum of some
windows.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

CHUNK_TOKENS = 16 << 20  # 64 MiB, the default size of streaming's and litdata's files
CHECKED = 64
ROWS = 8


class Tool:
    """What is measured: `count` windows, `read(i)` their tokens, `batch(i)` ROWS samples as training takes them."""

    count: int
    batch: Callable[[int], Any] | None = None

    def __init__(self, folder: Path, length: int) -> None: ...

    @staticmethod
    def write(folder: Path, length: int) -> None: ...

    def read(self, number: int) -> Any: ...

    def state(self) -> Any: ...


def stream_of(folder: Path) -> np.ndarray:
    return np.memmap(folder / "tokens.u32", dtype="<u4", mode="r")


class Floor(Tool):
    def __init__(self, folder: Path, length: int) -> None:
        self.stream, self.length = stream_of(folder), length
        self.count = (len(self.stream) - 1) // length

    def read(self, number: int) -> Any:
        return self.stream[number * self.length : number * self.length + self.length + 1]

    def state(self) -> Any:
        return {"consumed_samples": 12345}


class Streaming(Tool):
    @staticmethod
    def write(folder: Path, length: int) -> None:
        from streaming import MDSWriter

        stream = stream_of(folder)
        with MDSWriter(out=str(folder / "streaming"), columns={"tokens": "ndarray:uint32"}) as out:
            for at in range(0, len(stream) - length, length):
                out.write({"tokens": np.array(stream[at : at + length + 1])})

    def __init__(self, folder: Path, length: int) -> None:
        from streaming import StreamingDataset

        self.dataset = StreamingDataset(local=str(folder / "streaming"), shuffle=False, batch_size=1)
        self.count = len(self.dataset)

    def read(self, number: int) -> Any:
        return self.dataset[number]["tokens"]

    def state(self) -> Any:
        return self.dataset.state_dict(12345, from_beginning=True)


class Litdata(Tool):
    @staticmethod
    def write(folder: Path, length: int) -> None:
        import torch
        from litdata.streaming.item_loader import TokensLoader
        from litdata.streaming.writer import BinaryWriter

        stream, borders = stream_of(folder), np.fromfile(folder / "borders.i64", dtype="<i8")
        out = folder / "litdata"
        out.mkdir()
        writer = BinaryWriter(str(out), chunk_size=CHUNK_TOKENS, item_loader=TokensLoader(length + 1))
        for number, (first, stop) in enumerate(pairwise(borders)):
            writer[number] = torch.from_numpy(stream[first:stop].astype(np.int32))
        writer.done()
        writer.merge()

    def __init__(self, folder: Path, length: int) -> None:
        from litdata import StreamingDataset
        from litdata.streaming.item_loader import TokensLoader

        self.dataset = StreamingDataset(str(folder / "litdata"), item_loader=TokensLoader(length + 1))
        self.count = len(self.dataset)

    def read(self, number: int) -> Any:
        return self.dataset[number]

    def state(self) -> Any:
        return self.dataset.state_dict(num_samples_yielded=12345, num_workers=1, batch_size=1)


class Datasets(Tool):
    @staticmethod
    def write(folder: Path, length: int) -> None:
        import pyarrow as pa
        from datasets import Dataset

        stream = stream_of(folder)
        cut = [stream[at : at + length + 1] for at in range(0, len(stream) - length, length)]
        rows = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(cut)), length + 1)
        made = Dataset(pa.table({"tokens": rows}))
        made.save_to_disk(str(folder / "datasets"))

    def __init__(self, folder: Path, length: int) -> None:
        from datasets import load_from_disk

        self.dataset = load_from_disk(str(folder / "datasets")).with_format("numpy")
        self.count = len(self.dataset)

    def read(self, number: int) -> Any:
        return self.dataset[number]["tokens"]

    def state(self) -> Any:
        return self.dataset.to_iterable_dataset().state_dict()


class Megatron(Tool):
    @staticmethod
    def write(folder: Path, length: int) -> None:
        from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

        stream, borders = stream_of(folder), np.fromfile(folder / "borders.i64", dtype="<i8")
        (folder / "megatron").mkdir()
        builder = IndexedDatasetBuilder(str(folder / "megatron" / "data.bin"), dtype=np.int32)
        for first, stop in pairwise(borders):
            builder.add_document(stream[first:stop].astype(np.int32), [int(stop - first)])
        builder.finalize(str(folder / "megatron" / "data.idx"))

    def __init__(self, folder: Path, length: int) -> None:
        from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
        from megatron.core.datasets.indexed_dataset import IndexedDataset
        from megatron.core.datasets.utils import Split

        class Tokenizer:
            eod = pad = 0
            vocab_size = 152_064
            unique_identifiers = {"class": "none"}  # noqa: RUF012

        cache = folder / "megatron" / "cache"
        config = GPTDatasetConfig(
            random_seed=1,
            sequence_length=length,
            split="1",
            path_to_cache=str(cache),
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            create_attention_mask=False,
            tokenizer=Tokenizer(),
        )
        indexed = IndexedDataset(str(folder / "megatron" / "data"))
        documents = np.arange(len(indexed.document_indices) - 1, dtype=np.int32)
        self.dataset = GPTDataset(indexed, str(folder / "megatron" / "data"), documents, None, Split.train, config)
        self.count = len(self.dataset)
        self.index_bytes = sum(path.stat().st_size for path in cache.iterdir())

    def batch(self, number: int) -> Any:
        from torch.utils.data import default_collate

        return default_collate([self.dataset[(number + i) % self.count] for i in range(ROWS)])

    def read(self, number: int) -> Any:
        return self.dataset._query_document_sample_shuffle_indices(number)[0]

    def state(self) -> Any:
        return {"consumed_samples": 12345}


class Dots(Tool):
    def __init__(self, folder: Path, length: int) -> None:
        from dots_train.data import ShardReader

        self.reader = ShardReader(folder / "dots", length, seed=1)
        self.count = self.reader.windows

    def read(self, number: int) -> Any:
        return self.reader.layout.read(number)[0]

    def batch(self, number: int) -> Any:
        return self.reader.batch(number, ROWS)

    def state(self) -> Any:
        return self.reader.state(12345)


# Each with its package and the modules that take long to import, which is none of the start-up that we measure.
TOOLS: dict[str, tuple[type[Tool], str, tuple[str, ...]]] = {
    "dots": (Dots, "dots", ("dots_train.data",)),
    "floor": (Floor, "numpy", ()),
    "megatron": (Megatron, "megatron-core", ("megatron.core.datasets.gpt_dataset",)),
    "datasets": (Datasets, "datasets", ("datasets",)),
    "litdata": (Litdata, "litdata", ("litdata.streaming.item_loader",)),
    "streaming": (Streaming, "mosaicml-streaming", ("streaming",)),
}


def anonymous() -> int:
    """Bytes of memory that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def rate(read: Callable[[int], Any], numbers: list[int], row: np.ndarray, seconds: float) -> dict[str, float]:
    """Read windows for a while, each into a row of a batch of int64: how many, in which CPU and wall time."""
    cpu, wall, done = time.process_time(), time.perf_counter(), 0
    for number in numbers:
        got = read(number)
        if isinstance(got, np.ndarray) or hasattr(got, "__array__"):
            row[:] = got
        done += 1
        if time.perf_counter() - wall > seconds:
            break
    return {"windows": done, "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def measure(kind: type[Tool], folder: Path, length: int, seconds: float) -> dict[str, Any]:
    before, cpu, wall = anonymous(), time.process_time(), time.perf_counter()
    tool = kind(folder, length)
    np.asarray(tool.read(tool.count // 2)).sum()
    started = {"open_cpu": time.process_time() - cpu, "open_wall": time.perf_counter() - wall}
    numbers = np.random.default_rng(7).permutation(tool.count).tolist() * 20
    checked = [np.ascontiguousarray(tool.read(number), dtype=np.int64) for number in numbers[:CHECKED]]
    row = np.empty(length + 1, dtype=np.int64)
    for number in numbers[: tool.count]:  # every page is in memory, every file open
        row[:] = tool.read(number)
    result = {
        **started,
        "count": tool.count,
        "tokens": rate(tool.read, numbers, row, seconds),
        "batch": rate(tool.batch, numbers, row, seconds) if tool.batch else None,
        "memory": anonymous() - before,
        "state": len(json.dumps(tool.state(), default=str)),
        "index_bytes": getattr(tool, "index_bytes", 0),
        "checksum": zlib.crc32(b"".join(one.tobytes() for one in checked)),
    }
    return result


def main() -> int:
    name, folder, length, what, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
    kind, package, modules = TOOLS[name]
    for module in modules:
        import_module(module)
    if what == "write":
        kind.write(folder, length)
        return 0
    result = measure(kind, folder, length, float(seconds))
    try:
        result["version"] = version(package)
    except PackageNotFoundError:
        result["version"] = ""
    # Loaders print as they please; the last line is ours.
    sys.stdout.flush()
    print("\n" + json.dumps(result), flush=True)
    os._exit(0)  # threads of some of them do not end


if __name__ == "__main__":
    sys.exit(main())
