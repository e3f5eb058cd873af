"""Checkpoints: whole or not there, whatever happens to the process, the disk or the files."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from dots_train import checkpoint
from dots_train.checkpoint import CheckpointError, Saver, latest, load, saved

TENSORS = {
    "model.weight": torch.arange(6.0),
    "model.bias": torch.tensor([0.1, -0.1]),
    "half": torch.ones(2, 3, dtype=torch.bfloat16),
    "random.torch": torch.get_rng_state(),
}


def save(folder: Path, step: int, tensors: dict[str, torch.Tensor], state: dict[str, Any], **more: Any) -> Path:
    saver = Saver(folder, more.pop("keep", 3))
    try:
        saver.save(step, tensors, state, **more)
        path = saver.wait()
    finally:
        saver.close()
    assert path is not None
    return path


def write(folder: Path, step: int, keep: int = 3, milestone: bool = False) -> Path:
    tensors = {"weight": torch.full((300,), float(step))}
    return save(folder, step, tensors, {"tokens": step * 10}, keep=keep, milestone=milestone)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints", 7, TENSORS, {"tokens": 70, "config": {"a": [1, 2]}}, keep=1)
    found = load(path)
    assert (found.step, found.state) == (7, {"tokens": 70, "config": {"a": [1, 2]}, "milestone": False})
    into = {name: torch.zeros_like(tensor) for name, tensor in TENSORS.items()}
    found.read(into)
    assert all(torch.equal(into[name], tensor) for name, tensor in TENSORS.items())
    assert names(path) == [".metadata", "__0_0.distcp", "manifest.json", "state.json"]
    with pytest.raises(CheckpointError, match=r"step-7: holds no 'model\.other'"):
        found.read({"model.other": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"model\.bias is \(2,\) there, \(3,\) here"):
        found.read({"model.bias": torch.zeros(3)})


def test_training_goes_on_while_it_is_written(tmp_path: Path) -> None:
    """What is saved is what stood there when the save began."""
    weight = torch.zeros(1000)
    saver = Saver(tmp_path, 3)
    for step in range(1, 5):
        weight.fill_(step)
        saver.save(step, {"weight": weight}, {})
        weight.fill_(-1.0)
    saver.wait()
    saver.close()
    for path in saved(tmp_path):
        found = load(path)
        found.read({"weight": weight})
        assert (weight == found.step).all()


def test_milestones_stay(tmp_path: Path) -> None:
    for step in range(1, 7):
        write(tmp_path, step, keep=2, milestone=step in (2, 3))
    assert names(tmp_path) == ["step-2", "step-3", "step-5", "step-6"]


def test_only_the_newest_stay_in_the_order_of_numbers(tmp_path: Path) -> None:
    for step in (9, 10, 100, 11):
        write(tmp_path, step)
    assert [path.name for path in saved(tmp_path)] == ["step-100", "step-11", "step-10"]
    assert latest(tmp_path, pytest.fail).step == 100  # type: ignore[union-attr,arg-type]


def test_nothing_saved_is_none(tmp_path: Path) -> None:
    assert latest(tmp_path / "absent", pytest.fail) is None  # type: ignore[arg-type]
    (tmp_path / ".step-5.partial").mkdir()
    (tmp_path / "step-x").mkdir()
    assert latest(tmp_path, pytest.fail) is None  # type: ignore[arg-type]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("file", "harm", "message"),
    [
        ("__0_0.distcp", flip, "step-2/__0_0.distcp: damaged .checksum"),
        ("__0_0.distcp", cut, "step-2/__0_0.distcp: damaged .size"),
        (".metadata", Path.unlink, "step-2/.metadata: missing"),
        ("state.json", cut, "step-2/state.json: damaged"),
        ("manifest.json", cut, "step-2/manifest.json: damaged"),
        ("manifest.json", Path.unlink, "step-2/manifest.json: cannot be read"),
    ],
)
def test_a_damaged_one_is_named_and_the_one_before_is_used(
    tmp_path: Path, file: str, harm: object, message: str
) -> None:
    write(tmp_path, 1)
    harm(write(tmp_path, 2) / file)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "step-2")
    warnings: list[str] = []
    found = latest(tmp_path, warnings.append)
    assert found is not None
    assert found.step == 1
    assert len(warnings) == 1
    assert "step-2" in warnings[0]
    assert "going back" in warnings[0]
    assert latest(tmp_path, warnings.append) is not None, "reading changes nothing"
    write(tmp_path, 2)
    assert latest(tmp_path, pytest.fail).step == 2, "a damaged one is replaced when its step comes again"  # type: ignore[union-attr,arg-type]


def test_all_damaged_is_an_error_and_not_a_fresh_start(tmp_path: Path) -> None:
    for step in (1, 2):
        flip(write(tmp_path, step) / "__0_0.distcp")
    with pytest.raises(CheckpointError, match="no checkpoint is readable"):
        latest(tmp_path, lambda sentence: None)


@pytest.mark.parametrize("file", ["__0_0.distcp", ".metadata"])
def test_a_pickle_with_a_right_checksum_is_not_run(tmp_path: Path, file: str) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = write(tmp_path, 1)
    (path / file).write_bytes(pickle.dumps(Bomb()))
    _sign(path, file)
    with pytest.raises(CheckpointError, match=r"not readable|which no checkpoint of ours holds"):
        load(path).read({"weight": torch.zeros(300)})
    assert not (tmp_path / "ran").exists()


def test_metadata_that_points_elsewhere_or_at_objects_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    whole = (path / ".metadata").read_bytes()
    for harm, message in ((outside, "outside the checkpoint"), (an_object, "not that of tensors")):
        metadata = pickle.loads(whole)  # noqa: S301
        harm(metadata)
        (path / ".metadata").write_bytes(pickle.dumps(metadata))
        _sign(path, ".metadata")
        with pytest.raises(CheckpointError, match=message):
            load(path).read({"weight": torch.zeros(300)})


def outside(metadata: Any) -> None:
    for info in metadata.storage_data.values():
        info.relative_path = "../../elsewhere"


def an_object(metadata: Any) -> None:
    metadata.state_dict_metadata["weight"] = "anything"


def _sign(path: Path, file: str) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][file] = checkpoint._describe(path / file)
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("call", range(1, 8))
def test_a_save_cut_short_anywhere_leaves_the_one_before(
    tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut at each sync, as a kill would: nothing after it runs, not even the cleaning up."""

    class Killed(BaseException):
        pass

    write(tmp_path, 1)
    calls = iter(range(1, 100))

    def sync(path: Path) -> None:
        if next(calls) == call:
            raise Killed

    monkeypatch.setattr(checkpoint, "_sync", sync)
    try:
        write(tmp_path, 2)
    except Killed:
        # Six syncs of ours: four files, their folder, and after the rename the folder above.
        expected = 2 if call == 6 else 1
    else:
        assert call == 7, "there are six syncs"
        expected = 2
    monkeypatch.undo()
    assert latest(tmp_path, pytest.fail).step == expected  # type: ignore[union-attr,arg-type]
    write(tmp_path, 3)
    assert not list(tmp_path.glob(".*")), "the next save removes what a cut one left"


def test_a_full_disk_is_one_sentence_and_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1)

    def full(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    with pytest.raises(CheckpointError, match=r"step-2: could not be written .No space left on device"):
        write(tmp_path, 2)
    assert names(tmp_path) == ["step-1"]
