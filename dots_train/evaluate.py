"""An export judged by EleutherAI's lm-evaluation-harness, on tasks and data from local files.

The harness is an extra (`pip install 'dots[eval]'`). No hub is asked for anything, neither for the model nor for data:
a task that needs one ends with the name of what it asked for.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dots_train.weights.shards import WeightsError, read_json, write_json

# Read by the libraries when they are imported. The last two bound what little may still wait.
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DOWNLOAD_TIMEOUT": "10",
    "HF_HUB_ETAG_TIMEOUT": "10",
}


class EvaluationError(RuntimeError):
    """An evaluation that cannot be done as asked; the message names the task or the package."""


@dataclass(frozen=True)
class Score:
    """One number of a task's results."""

    task: str
    metric: str
    value: float
    error: float | None
    """Standard error, where the harness gives one."""
    documents: int
    higher_is_better: bool | None


def evaluate(
    export: Path,
    tasks: Sequence[str],
    output: Path,
    *,
    device: str = "cpu",
    batch_size: int = 8,
    limit: int | None = None,
) -> list[Score]:
    """Run tasks and write `output`/results.json.

    Args:
        export: a folder of transformers.
        tasks: folders of task files (all tasks in them; paths of data are taken from there), and names of tasks: of
            those folders if any are given, else of the harness itself, whose data must be in the local cache.
        limit: documents of each task, for a trial.

    Raises:
        EvaluationError: the harness is not installed, a task is unknown, its data is not local, or it failed.
        WeightsError: `export` is no folder of transformers.
    """
    if read_json(export / "config.json").get("model_type") != "dots1":
        raise WeightsError(f"{export / 'config.json'}: model_type is not dots1; name a folder that `dots export` wrote")
    folders, names = _sorted_out(tasks)
    os.environ.update(_OFFLINE)
    export, output = export.resolve(), output.resolve()
    with _started_in(folders), _bounded_sockets():
        results = _run(export, folders, names, device, batch_size, limit)
    scores = list(_scores(results))
    output.mkdir(parents=True, exist_ok=True)
    partial = output / ".results.json.partial"
    write_json(partial, _report(export, results, scores, limit))
    partial.replace(output / "results.json")
    return scores


def _sorted_out(tasks: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Folders, and names of tasks."""
    folders = [Path(task).resolve() for task in tasks if Path(task).is_dir()]
    names = [task for task in tasks if not Path(task).is_dir()]
    for name in names:
        if "/" in name or name.endswith((".yaml", ".yml")):
            raise EvaluationError(f"{name}: no such folder; give folders of task files, or names of tasks")
    return folders, names


@contextlib.contextmanager
def _started_in(folders: Sequence[Path]) -> Iterator[None]:
    """Task files name their data by path; with one folder of tasks such a path begins there."""
    with contextlib.chdir(folders[0]) if len(folders) == 1 else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _bounded_sockets(seconds: float = 10.0) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _run(
    export: Path, folders: Sequence[Path], names: Sequence[str], device: str, batch_size: int, limit: int | None
) -> Mapping[str, Any]:
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise EvaluationError(
            f"the evaluation harness cannot be imported ({error}); install it with: pip install 'dots[eval]'"
        ) from error
    manager = TaskManager(include_path=[str(folder) for folder in folders], include_defaults=not folders)
    wanted = list(names) or sorted(manager.all_subtasks)
    unknown = [name for name in wanted if name not in manager.all_tasks]
    if unknown or not wanted:
        where = ", ".join(map(str, folders)) or "the harness"
        raise EvaluationError(f"{unknown[0] if unknown else 'no task'}: not among the tasks of {where}")
    try:
        results = simple_evaluate(
            model="hf",
            model_args={"pretrained": str(export), "trust_remote_code": False, "dtype": "auto"},
            tasks=wanted,
            task_manager=manager,
            batch_size=batch_size,
            device=device,
            limit=limit,
            log_samples=False,
            confirm_run_unsafe_code=False,
        )
    except Exception as error:  # tasks are code and data of others: anything may come of them
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise EvaluationError(f"{', '.join(wanted)}: {reason}") from error
    if results is None:
        raise EvaluationError("the harness gave no results on this rank; run it in one process")
    return dict(results)


def _scores(results: Mapping[str, Any]) -> Iterator[Score]:
    """The harness's `{task: {"metric,filter": value}}` as rows, in order."""
    for task, found in sorted(results["results"].items()):
        better = results.get("higher_is_better", {}).get(task, {})
        documents = results.get("n-samples", {}).get(task, {}).get("effective", 0)
        for key, value in sorted(found.items()):
            metric, comma, kind = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = found.get(f"{metric}_stderr,{kind}")
            shown = metric if kind == "none" else f"{metric} ({kind})"
            known = float(error) if isinstance(error, int | float) else None
            yield Score(task, shown, float(value), known, documents, better.get(metric))


def _report(export: Path, results: Mapping[str, Any], scores: Sequence[Score], limit: int | None) -> dict[str, Any]:
    """What is worth keeping; nothing in it depends on the time or the machine."""
    import torch

    return {
        "export": str(export),
        "limit": limit,
        "scores": [vars(score) for score in scores],
        "tasks": {
            task: {
                "version": results.get("versions", {}).get(task),
                "shots": results.get("n-shot", {}).get(task),
                "hash": results.get("task_hashes", {}).get(task),
            }
            for task in sorted(results["results"])
        },
        "versions": {
            "lm_eval": results.get("lm_eval_version"),
            "transformers": results.get("transformers_version"),
            "torch": torch.__version__,
        },
    }
