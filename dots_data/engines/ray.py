"""Ray: a quiet session, and a bounded map of tasks over items.

Tokenization runs here. Tasks read and write files; only small values (counts, names) go through the object
store. With RAY_ADDRESS set, an existing cluster is used, and the folders of the job must be the same on all
its machines. `workers=0` runs the same tasks in this process, one after the other, without Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

OBJECT_STORE_BYTES = 256 * 2**20
IN_FLIGHT = 4  # tasks submitted for each worker: enough to keep it busy, few enough to stop soon
RETRIES = 3
STALL_SECONDS = 3600.0

# Inherited by the workers: nothing is reported to anyone, and the workers themselves are the parallelism.
WORKER_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "RAYON_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


class RayError(RuntimeError):
    """Ray cannot start, or a task died with its worker; the message says what to do."""


@contextlib.contextmanager
def session(workers: int, log: Path) -> Iterator[None]:
    """Ray for the time of a `with` block; whatever it prints goes to the file `log`. `workers=0`: no Ray at
    all.

    Raises:
        RayError: Ray does not start.
    """
    if not workers:
        yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="dots-ray-")  # under /tmp: Ray's sockets want a short path
    try:
        with _output_to(log), _environment(WORKER_ENVIRONMENT):
            ray = _start(workers, folder)
        try:
            with _messages_to(log):
                yield
        finally:
            with _output_to(log):
                ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def map_tasks(
    work: Callable[[T], R],
    items: Sequence[T],
    workers: int,
    on_done: Callable[[R], None] = lambda result: None,
    stall_seconds: float = STALL_SECONDS,
) -> list[R]:
    """`[work(item) for item in items]` on the workers; `on_done` sees each result as it comes, in any order.

    At most `IN_FLIGHT` tasks a worker are under way. A task whose worker died, or that met an OSError, is run
    again up to `RETRIES` times; tasks must therefore be safe to repeat.

    Raises:
        RayError: a worker died too often, or no task ended for `stall_seconds`.
        Whatever `work` raises, as it raised it.
    """
    if not workers:
        return [_told(work(item), on_done) for item in items]
    import ray

    task: Any = ray.remote(_apply).options(num_cpus=1, max_retries=RETRIES, retry_exceptions=[OSError])
    shared = ray.put(work)
    waiting = list(enumerate(items))[::-1]
    running: dict[Any, int] = {}
    results: dict[int, R] = {}
    heard = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < IN_FLIGHT * workers:
                number, item = waiting.pop()
                running[task.remote(shared, item)] = number
            ready, _ = ray.wait(list(running), num_returns=1, timeout=10.0)
            for reference in ready:
                results[running.pop(reference)] = _told(_get(ray, reference), on_done)
                heard = time.monotonic()
            if time.monotonic() - heard > stall_seconds:
                raise RayError(f"no task ended for {stall_seconds:.0f} s: are there free CPUs in the cluster?")
    except BaseException:
        for reference in running:
            with contextlib.suppress(Exception):
                ray.cancel(reference, force=True)
        raise
    return [results[number] for number in range(len(items))]


def _apply(work: Callable[[T], R], item: T) -> R:
    return work(item)


def _told(result: R, on_done: Callable[[R], None]) -> R:
    on_done(result)
    return result


def _get(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RayError(f"a worker died on one task {RETRIES + 1} times (out of memory?): {reason}") from error


def _start(workers: int, folder: str) -> Any:
    try:
        import ray

        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if os.environ.get("RAY_ADDRESS"):
            ray.init(**quiet)
        else:
            ray.init(
                num_cpus=workers,
                num_gpus=0,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=folder,
                **quiet,
            )
    except Exception as error:
        raise RayError(f"Ray does not start: {error} (--workers 0 runs without it)") from error
    return ray


@contextlib.contextmanager
def _messages_to(log: Path) -> Iterator[None]:
    """Write what Ray tells the driver of dying workers to the log: `log_to_driver` does not cover it."""
    from ray._private import worker as ray_worker

    worker: Any = ray_worker

    def write(data: dict[str, Any], ignore_prefix: bool = False) -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in data.get("lines", ()))

    real = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = write
    try:
        yield
    finally:
        worker.print_to_stdstream = real


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables that are not set, for a while."""
    mine = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send file descriptors 1 and 2 to a file for a while: native code prints past Python."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for saved, number in zip(kept, (1, 2), strict=True):
            os.dup2(saved, number)
            os.close(saved)
