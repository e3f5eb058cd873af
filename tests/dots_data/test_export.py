"""An export holds the same tokens: by the documented layout, and as the tool that it is for reads it."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dots_data.tokens import export as module
from dots_data.tokens import manifest
from dots_data.tokens.export import FORMATS, export
from dots_data.tokens.manifest import ManifestError
from dots_data.tokens.reading import stretches
from dots_data.tokens.shards import ShardError

from .test_shards import some_rows, write_dataset

ROOT = Path(__file__).resolve().parent.parent.parent
Found = dict[str, list[tuple[str, list[int]]]]  # of each source: id and tokens of each document


@pytest.fixture(scope="module", params=[1000, 70_000], ids=["uint16", "uint32"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dataset")
    rows = [some_rows(seed, count, request.param) for seed, count in ((1, 20), (2, 1), (3, 7), (4, 30), (5, 2))]
    write_dataset(path, [[rows[0], rows[1]], [rows[2]], [rows[3]], [rows[4], [list(range(1, 300))]]], request.param)
    return path


def documents(folder: Path) -> Found:
    found: Found = {}
    dataset = manifest.read(folder)
    for shard in dataset.shards:
        for one in stretches(folder, shard):
            cut = zip(one.names, one.borders[:-1], one.borders[1:], strict=True)
            found.setdefault(shard.source, []).extend((name, one.values[a:b].tolist()) for name, a, b in cut)
    return found


def read_megatron(folder: Path, dtype: str) -> list[list[int]]:
    index, tokens = (folder / "tokens.idx").read_bytes(), (folder / "tokens.bin").read_bytes()
    magic, version, code, sequences, borders = struct.unpack_from("<9sQBQQ", index)
    assert (magic, version, code) == (b"MMIDIDX\0\0", 1, {"uint16": 8, "uint32": 4}[dtype])
    kind = {8: "<u2", 4: "<i4"}[code]
    lengths = np.frombuffer(index, "<i4", sequences, 34)
    pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    firsts = np.frombuffer(index, "<i8", borders, 34 + 12 * sequences)
    assert len(index) == 34 + 12 * sequences + 8 * borders and firsts.tolist() == list(range(sequences + 1))
    assert len(tokens) == int(lengths.sum()) * np.dtype(kind).itemsize
    return [np.frombuffer(tokens, kind, n, at).tolist() for n, at in zip(lengths, pointers, strict=True)]


def read_datatrove(folder: Path, dtype: str) -> list[list[int]]:
    found = []
    for path in sorted(folder.glob("*.ds")):
        tokens, ends = np.fromfile(path, f"<u{np.dtype(dtype).itemsize}"), np.fromfile(f"{path}.index", "<u8")
        name, count, _ = Path(f"{path}.metadata").read_text().split("\n")
        assert (name.rpartition("|")[2], count) == (str(np.dtype(dtype).itemsize), str(len(tokens)))
        found += [part.tolist() for part in np.split(tokens, ends.astype(np.int64))[:-1]]
        assert ends[-1] == len(tokens)
    return found


def read_mds(folder: Path, dtype: str) -> list[tuple[str, list[int]]]:
    found = []
    index = json.loads((folder / "index.json").read_bytes())
    for entry in index["shards"]:
        content = (folder / entry["raw_data"]["basename"]).read_bytes()
        assert len(content) == entry["raw_data"]["bytes"]
        offsets = np.frombuffer(content, "<u4", entry["samples"] + 1, 4).tolist()
        for start, end in itertools.pairwise(offsets):
            name, array = struct.unpack_from("<II", content, start)
            assert start + 8 + name + array == end
            body = start + 8 + name
            width = 1 << (content[body] & 3)
            values = np.frombuffer(content[body + 1 + width : end], dtype)
            assert int.from_bytes(content[body + 1 : body + 1 + width], "little") == len(values)
            found.append((content[start + 8 : body].decode(), values.tolist()))
    return found


def read_npy(folder: Path, dtype: str) -> list[tuple[str, list[int]]]:
    found = []
    for path in sorted(folder.glob("*.npy")):
        tokens = np.memmap(path, dtype, "r")
        with gzip.open(path.with_suffix(".csv.gz"), "rt", newline="") as lines:
            for start, end, name, _, _ in csv.reader(lines):
                found.append((name, tokens[int(start) : int(end)].tolist()))
    return found


READERS: dict[str, Any] = {"megatron": read_megatron, "datatrove": read_datatrove, "mds": read_mds, "npy": read_npy}


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_the_documented_layout_holds_the_same_documents(kind: str, folder: Path, tmp_path: Path) -> None:
    output = export(folder, kind, tmp_path / "out")
    dataset, expected = manifest.read(folder), documents(folder)
    assert sorted(path.name for path in output.iterdir() if path.is_dir()) == sorted(expected)
    for source, rows in expected.items():
        found = READERS[kind](output / source, dataset.dtype)
        assert found == (rows if kind in ("mds", "npy") else [tokens for _, tokens in rows])
    about = json.loads((output / "dataset.json").read_bytes())
    assert (about["dataset"], about["tokenizer"]["sha256"]) == (dataset.id, dataset.tokenizer.sha256)
    assert (output / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


def as_read_by_the_tool(kind: str, folder: Path, width: int) -> Any:
    peers = Path(os.environ.get("DOTS_PEERS", ROOT / "build" / "peers"))
    found = sorted(peers.glob("export-readers/lib/python3*/site-packages"))
    if not found:
        pytest.skip(f"no readers at {peers}/export-readers: make export-readers installs them (or set DOTS_PEERS)")
    command = [sys.executable, str(Path(__file__).with_name("export_readers.py")), kind, str(folder), str(width)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(found[0])}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["megatron", "mds", "datatrove"])
def test_the_tool_reads_it(kind: str, folder: Path, tmp_path: Path) -> None:
    output = export(folder, kind, tmp_path / "out")
    dataset, (source, rows) = manifest.read(folder), next(iter(documents(folder).items()))
    found = as_read_by_the_tool(kind, output / source, 2 if dataset.dtype == "uint16" else 4)
    if kind != "datatrove":
        assert found == [[name, tokens] if kind == "mds" else tokens for name, tokens in rows]
        return
    # Windows of 7 + 1 tokens of each file, and their places in their documents.
    expected = []
    for path in sorted((output / source).glob("*.ds")):
        here = read_datatrove_file(path, dataset.dtype)
        expected += [[here[0][i : i + 8], here[1][i : i + 8]] for i in range(0, len(here[0]) // 8 * 8, 8)]
    assert [window for window, _ in found] == [window for window, _ in expected]
    for (_, said), (_, places) in zip(found, expected, strict=True):
        # A document that began before the window counts from the window's start there.
        border = next((i for i, place in enumerate(places) if place == 0), len(places))
        assert said[border:] == places[border:] and said[:border] == list(range(border))


def read_datatrove_file(path: Path, dtype: str) -> tuple[list[int], list[int]]:
    tokens = np.fromfile(path, f"<u{np.dtype(dtype).itemsize}").tolist()
    ends = np.fromfile(f"{path}.index", "<u8").astype(np.int64)
    return tokens, [place for size in np.diff(ends, prepend=0).tolist() for place in range(size)]


def test_small_mds_shards(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MDS_BYTES", 500)
    output = export(folder, "mds", tmp_path / "out")
    expected = documents(folder)
    assert len(list((output / "books").glob("*.mds"))) > 2
    assert read_mds(output / "books", manifest.read(folder).dtype) == expected["books"]


def test_what_is_there_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ShardError, match="not empty"):
        export(folder, "npy", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(ManifestError, match=r"gone.*manifest\.json: cannot be read"):
        export(tmp_path / "gone", "npy", tmp_path / "new")


def test_a_killed_export_leaves_nothing_of_its_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(module.os, "replace", killed)
        export(folder, "npy", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export(folder, "npy", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_cut_shard_is_named(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / "shard-00001.arrow"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ShardError, match=r"shard-00001\.arrow: cannot be read"):
        export(copy, "megatron", tmp_path / "out")
