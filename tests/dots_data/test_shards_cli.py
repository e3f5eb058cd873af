"""`dots shards`: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dots_data import cli
from dots_data.tokens import manifest

from .test_editing import name_of
from .test_shards import some_rows, write_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "tokens", [[some_rows(1, 20)], [some_rows(4, 30)]])
    return tmp_path / "tokens"


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("verify {0}", 0, "every shard is what the manifest says"),
        ("verify {0}/gone", 1, "cannot be read"),
        ("peek {0} --rows 1", 0, "shard-00000|doc_id"),
        ("peek {0} --shard 7", 2, "has shards 0 to 1, not 7"),
        ("export {0} --format npy --output {0}/../out", 0, "written as npy"),
        ("export {0} --format npy --output {0}", 2, "not empty"),
        ("append {0} {0}", 2, "in it already"),
        ("takedown {0}", 2, "--doc-id ID or --url URL"),
        ("takedown {0} --doc-id " + "f" * 32, 2, "no dataset here holds"),
        ("where --step 3 {0}", 2, "give the output folder of pretrain"),
    ],
)
def test_commands(command: str, code: int, says: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["shards", *command.format(folder).split()]) == code
    said = " ".join("".join(capfd.readouterr()).split())
    assert any(one in said for one in says.split("|"))


def test_append_and_takedown_say_what_they_did(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "more", [[some_rows(6, 5)]], first=1000)
    first = manifest.read(folder).id
    assert cli.main(["shards", "append", str(folder), str(tmp_path / "more")]) == 0
    said = capfd.readouterr().out.replace("\n", "")
    assert "5 documents" in said and manifest.read(folder).id in said and f"manifest-{first}.json" in said
    url = f"https://a.example/{name_of(1003)}"
    assert cli.main(["shards", "takedown", str(folder), "--url", url]) == 0
    said = capfd.readouterr().out.replace("\n", "")
    assert f"gone: {name_of(1003)} {url}" in said and "removed: " in said and "shard-00002.arrow" in said
    assert cli.main(["shards", "verify", str(folder)]) == 0


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for action in ("", "where", "export", "append", "takedown"):
        with pytest.raises(SystemExit):
            cli.main(["shards", *([action] if action else []), "--help"])
        said = capsys.readouterr().out
        assert action in said and len(said.splitlines()) > 12


def test_peek_is_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["shards", "peek", str(folder), "--rows", "2"])
    assert [row["row"] for row in json.loads(capsys.readouterr().out)] == [0, 1]
