"""A dataset grows and loses documents; whatever is killed on the way, it is the old one or the new one."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dots_data.tokens import editing, manifest, shards, versions
from dots_data.tokens.editing import append, takedown
from dots_data.tokens.manifest import ManifestError
from dots_data.tokens.reading import stretches
from dots_data.tokens.shards import ShardError
from dots_train.data import ShardReader

from .test_export import documents
from .test_shards import as_documents, header, some_rows, write_dataset

TABLES = [[some_rows(1, 20), some_rows(2, 1), some_rows(3, 7)], [some_rows(4, 30)], [some_rows(5, 2)]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "tokens", TABLES)
    return tmp_path / "tokens"


@pytest.fixture
def more(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "more", [[some_rows(6, 5)], [some_rows(7, 9)]], first=1000)
    return tmp_path / "more"


def name_of(number: int) -> str:
    return as_documents([[1]], number).doc_ids[0].as_py().hex()


def everything(folder: Path) -> list[tuple[str, list[int]]]:
    """All documents of a dataset, in order."""
    return [one for rows in documents(folder).values() for one in rows]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file() and path.stat().st_size}


def test_append(folder: Path, more: Path) -> None:
    before, theirs = everything(folder), everything(more)
    old = manifest.read(folder)
    grown = append(folder, more)
    assert shards.verify(folder) == shards.verify(more) == []
    assert sorted(everything(folder)) == sorted(before + theirs)
    assert [one.file for one in grown.shards] == [f"shard-{n:05d}.arrow" for n in range(5)]
    assert (grown.documents, grown.id) == (old.documents + 14, manifest.read(folder).id)
    # The dataset that it was stays, and is read as before.
    kept = versions.find(folder, old.id)
    assert kept.name == f"manifest-{old.id}.json" and shards.verify(kept) == []
    reader = ShardReader(kept, 16, 0)
    assert reader.id == old.id and reader.windows == (old.tokens - 1) // 16
    # The rest of what `more` is does not concern it: no copy, no link to another name.
    assert ShardReader(folder, 16, 0).manifest.tokens == grown.tokens


def test_append_to_what_was_appended(folder: Path, more: Path, tmp_path: Path) -> None:
    first = manifest.read(folder).id
    second = append(folder, more).id
    write_dataset(tmp_path / "third", [[some_rows(8, 3)]], first=2000)
    third = append(folder, tmp_path / "third")
    assert len(third.shards) == 6 and shards.verify(folder) == []
    assert all(manifest.read(versions.find(folder, one)).id == one for one in (first, second, third.id))


def test_what_cannot_be_appended(folder: Path, more: Path, tmp_path: Path) -> None:
    before = content(folder)

    def refused(other: Path, says: str) -> None:
        with pytest.raises((ShardError, ManifestError), match=says):
            append(folder, other)
        assert content(folder) == before

    refused(tmp_path / "gone", "cannot be read")
    refused(folder, r"60 documents of .* are in it already: [0-9a-f]{32}, [0-9a-f]{32}, [0-9a-f]{32}, \.\.\.")
    write_dataset(tmp_path / "overlap", [[some_rows(9, 3)]], first=19)
    refused(tmp_path / "overlap", "3 documents of .*overlap are in it already")
    write_dataset(tmp_path / "wide", [[some_rows(9, 3)]], vocab_size=70_000, first=3000)
    refused(tmp_path / "wide", "another tokenizer .vocab_size is 70000")
    path = more / "shard-00001.arrow"
    flipped = bytearray(path.read_bytes())
    flipped[manifest.read(more).shards[1].batches[0].tokens_at] ^= 1
    path.write_bytes(flipped)
    refused(more, r"more/shard-00001\.arrow: is not what its manifest says")


def test_takedown_by_id_and_url(folder: Path) -> None:
    before, old = everything(folder), manifest.read(folder)
    meant = {name_of(3), name_of(20), name_of(40)}
    done = takedown(folder, [name_of(3), name_of(20)], [f"https://a.example/{name_of(40)}"])
    assert {doc_id for doc_id, _ in done.documents} == meant and done.datasets == (old.id,)
    assert everything(folder) == [one for one in before if one[0] not in meant]
    assert shards.verify(folder) == []
    # A batch whose only document went is gone too.
    assert [len(one.batches) for one in done.dataset.shards] == [2, 1, 1]
    assert [one.file for one in done.dataset.shards] == ["shard-00003.arrow", "shard-00004.arrow", "shard-00002.arrow"]
    everywhere = b"".join(content(folder).values())
    for doc_id in meant:
        tokens = next(np.array(ids, np.uint16).tobytes() for name, ids in before if name == doc_id)
        assert bytes.fromhex(doc_id) not in everywhere and (len(tokens) < 20 or tokens not in everywhere)
    for path in folder.glob("*.parquet"):
        assert not meant & set(pq.read_table(path)["doc_id"].to_pylist())
    assert not (folder / "shard-00000.arrow").exists() and not (folder / "shard-00000.provenance.parquet").exists()
    with pytest.raises(ManifestError, match=rf"documents of the dataset {old.id} were taken down"):
        versions.find(folder, old.id)


def test_a_dataset_of_nothing(folder: Path) -> None:
    done = takedown(folder, [name_of(number) for number in range(60)])
    assert (done.dataset.documents, done.dataset.shards) == (0, ())
    assert shards.verify(folder) == [] and not list(folder.glob("shard-*"))


def test_takedown_of_what_is_not_there(folder: Path) -> None:
    before = content(folder)
    with pytest.raises(ShardError, match="no dataset here holds"):
        takedown(folder, ["f" * 32])
    assert content(folder) == before


def test_takedown_reaches_earlier_datasets_and_later_ones_stay_without(folder: Path, more: Path) -> None:
    first, second = manifest.read(folder).id, append(folder, more).id
    done = takedown(folder, [name_of(1001)])
    # Of the first dataset no document went: it is still there.
    assert done.datasets == (second,) and versions.find(folder, first).exists()
    third = done.dataset.id
    done = takedown(folder, [name_of(0)])
    assert set(done.datasets) == {first, third}
    assert not list(folder.glob("manifest-*.json")) and shards.verify(folder) == []
    with pytest.raises(ShardError, match=rf"1 documents of .* were taken down from it: {name_of(1001)}"):
        append(done_without(folder, more), more)
    assert shards.verify(folder) == []


def done_without(folder: Path, more: Path) -> Path:
    """The folder, after all but one document of `more` are gone from it."""
    others = [name for name, _ in everything(more) if name != name_of(1001)]
    dataset = manifest.read(folder)
    left = [one for one in dataset.shards if not any(set(s.names) & set(others) for s in stretches(folder, one))]
    manifest.write(folder, editing._with_shards(dataset, left, dataset.recipe))
    return folder


class Killed(BaseException):
    """What no handler stops."""


def killed_at(number: int, work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Do the work, killed at its `number`-th change of a name in the file system; False if there are not so many."""
    left = number

    def counting(change: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return change(*given, **options)

        return counted

    with monkeypatch.context() as patched:
        for name in ("replace", "link", "unlink"):
            patched.setattr(os, name, counting(getattr(os, name)))
        patched.setattr(Path, "unlink", counting(Path.unlink))
        try:
            work()
        except Killed:
            return True
    return False


def test_a_takedown_killed_anywhere(folder: Path, more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(folder, more)
    meant = [name_of(20), name_of(40), name_of(1003)]
    old, new = everything(folder), [one for one in everything(folder) if one[0] not in meant]
    shutil.copytree(folder, tmp_path / "whole")
    takedown(tmp_path / "whole", meant)
    number, states = 0, set()
    while True:
        shutil.copytree(folder, tmp_path / "copy")
        killed = killed_at(number, lambda: takedown(tmp_path / "copy", meant), monkeypatch)
        found = everything(tmp_path / "copy")
        assert found in (old, new) and shards.verify(tmp_path / "copy") == []
        states.add(found == new)
        try:
            takedown(tmp_path / "copy", meant)
        except ShardError:
            # Nothing was left to do: the last removal was made.
            assert found == new
        assert content(tmp_path / "copy") == content(tmp_path / "whole")
        shutil.rmtree(tmp_path / "copy")
        number += 1
        if not killed:
            break
    assert states == {True, False} and number > 12


def test_an_append_killed_anywhere(folder: Path, more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = everything(folder)
    shutil.copytree(folder, tmp_path / "whole")
    append(tmp_path / "whole", more)
    new, number = everything(tmp_path / "whole"), 0
    while True:
        shutil.copytree(folder, tmp_path / "copy")
        killed = killed_at(number, lambda: append(tmp_path / "copy", more), monkeypatch)
        found = everything(tmp_path / "copy")
        assert found in (old, new) and shards.verify(tmp_path / "copy") == []
        if found == old:
            append(tmp_path / "copy", more)
        assert content(tmp_path / "copy") == content(tmp_path / "whole")
        shutil.rmtree(tmp_path / "copy")
        number += 1
        if not killed:
            break
    assert number > 8


def test_kill_9_after_the_commit(folder: Path) -> None:
    script = (
        "import os, signal, sys; from dots_data.tokens import editing\n"
        "editing._settle = lambda *given: os.kill(os.getpid(), signal.SIGKILL) if os.path.exists(\n"
        "    sys.argv[1] + '/takedowns.json') else []\n"
        "editing.takedown(sys.argv[1], [sys.argv[2]])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    done = subprocess.run([sys.executable, "-c", script, str(folder), name_of(5)], env=environment, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert (folder / "shard-00000.arrow").exists() and shards.verify(folder) == []
    finished = takedown(folder, [name_of(5)])
    assert finished.documents == () and "shard-00000.arrow" in finished.files
    assert not (folder / "shard-00000.arrow").exists() and shards.verify(folder) == []


def test_a_folder_in_use(folder: Path, more: Path) -> None:
    with editing._held(folder), pytest.raises(ShardError, match="another process is writing"):
        append(folder, more)


def test_shards_of_other_jobs_say_so_still(folder: Path, more: Path) -> None:
    grown = append(folder, more)
    assert grown.recipe.tokenize not in {one.job for one in grown.shards}
    done = takedown(folder, [name_of(1000)])
    assert {one.job for one in done.dataset.shards} == {header().job}
    assert ShardReader(folder, 16, 0).windows > 0
    assert dataclasses.replace(done.dataset.recipe) == grown.recipe
