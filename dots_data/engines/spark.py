"""Spark: a quiet session, and stages whose output is committed by a manifest written last.

Everything that is a shuffle over the whole corpus runs here. Rows cross into Python as Arrow record batches
(`mapInArrow`) and nothing brings the corpus to the driver.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from dots_data.schema import PLACE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

Batches = Iterable[pa.RecordBatch]
Checkpoint: TypeAlias = "Callable[[str, DataFrame], DataFrame]"

MINIMUM_JAVA = 17

# A batch of texts must fit Java's heap and a Python worker several times over: pages can be megabytes each.
BATCH_CHARACTERS = 16_000_000
BATCH_BYTES = "64m"


class EngineError(RuntimeError):
    """The engine cannot start or cannot go on; the message says what to do."""


class JavaError(EngineError):
    """There is no Java that Spark can use: trying again does not help, the message says what does."""


@dataclass(frozen=True)
class Resources:
    """What a job may use on this machine.

    cores: Spark's worker threads and Python workers (None: all that the process may run on).
    memory: the Java heap, as Java writes it (`2g`).
    partitions: tasks of the preparation stage (None: one a unit of input). No result depends on it.
    shuffle_partitions: tasks of a shuffle (None: twice the cores). No result depends on it.
    """

    cores: int | None = None
    memory: str = "2g"
    partitions: int | None = None
    shuffle_partitions: int | None = None

    @property
    def usable_cores(self) -> int:
        return self.cores or len(os.sched_getaffinity(0))


def java_version(java: str) -> int:
    """The major version that the program `java` prints; 0 if it does not run."""
    try:
        ran = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', ran.stderr + ran.stdout)
    return int(found.group(1)) if found else 0


def require_java() -> None:
    """Raise JavaError unless Java 17 or later can be started (JAVA_HOME first, then PATH)."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java") or "java"
    version = java_version(java)
    if version < MINIMUM_JAVA:
        found = f"{java} is version {version}" if version else "no java was found"
        raise JavaError(
            f"Spark needs Java {MINIMUM_JAVA} or later and {found}: install one "
            "(Debian, Ubuntu: apt-get install openjdk-17-jre-headless) or set JAVA_HOME."
        )


@contextlib.contextmanager
def session(name: str, resources: Resources, scratch: Path, log: Path) -> Iterator[SparkSession]:
    """A local Spark session (or the cluster of SPARK_MASTER) whose own log lines go to the file `log`.

    Raises:
        JavaError: no usable Java.
        EngineError: the session did not start; names the log file.
    """
    require_java()
    for folder in (scratch, log.parent):
        folder.mkdir(parents=True, exist_ok=True)
    # Spark's workers must run this interpreter, not whatever `python3` means on their PATH.
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    cores = resources.usable_cores
    builder = (
        SparkSession.Builder()
        .appName(name)
        .master(os.environ.get("SPARK_MASTER", f"local[{cores}]"))
        .config("spark.driver.memory", resources.memory)
        .config("spark.local.dir", str(scratch / "spark"))
        .config("spark.sql.warehouse.dir", str(scratch / "warehouse"))
        .config("spark.sql.shuffle.partitions", str(resources.shuffle_partitions or 2 * cores))
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "256")
        .config("spark.sql.execution.arrow.maxBytesPerBatch", BATCH_BYTES)
        .config("spark.sql.parquet.compression.codec", "zstd")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.ui.enabled", os.environ.get("DOTS_SPARK_UI", "false"))
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.bindAddress", os.environ.get("SPARK_LOCAL_IP", "127.0.0.1"))
        .config("spark.driver.host", os.environ.get("SPARK_LOCAL_IP", "127.0.0.1"))
    )
    try:
        with _noise_to(log), _own_interrupt():
            spark = builder.getOrCreate()
    except Exception as error:
        raise EngineError(f"Spark did not start ({type(error).__name__}); its own words are in {log}") from error
    try:
        with _logging_to(log):
            yield spark
    finally:
        # Ends the jobs that run, too: an interrupt waits for none of them.
        with _noise_to(log):
            spark.stop()
        # The Java process outlives stop(); ended here, it cannot hold memory that the next step needs.
        _end_java(spark)
        shutil.rmtree(scratch / "spark", ignore_errors=True)


def _end_java(spark: SparkSession) -> None:
    from pyspark import SparkContext

    gateway = getattr(SparkContext, "_gateway", None)
    process = getattr(gateway, "proc", None)
    if gateway is None or process is None:
        return
    gateway.shutdown()
    process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=30)
    SparkContext._gateway = SparkContext._jvm = None


@contextlib.contextmanager
def _own_interrupt() -> Iterator[None]:
    """Keep Python's handler of SIGINT: pyspark's own calls Java inside of whatever call to Java it interrupts."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _logging_to(log: Path) -> Iterator[None]:
    """Send what Python code logs to `log`: py4j reports every interrupt with a traceback."""
    handler = logging.FileHandler(log)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


@contextlib.contextmanager
def _noise_to(log: Path) -> Iterator[None]:
    """Send file descriptors 1 and 2 to `log`: the Java process inherits them when it starts."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        yield
    finally:
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (target, *saved):
            os.close(descriptor)


def map_batches(frame: DataFrame, function: Callable[[Batches], Batches], schema: pa.Schema) -> DataFrame:
    """Run `function` over the Arrow record batches of each partition; it yields batches of `schema`."""
    from pyspark.sql.pandas.types import from_arrow_schema

    return frame.mapInArrow(function, from_arrow_schema(schema))


def group_batches(frame: DataFrame, key: str, function: Callable[[pa.Table], pa.Table], schema: pa.Schema) -> DataFrame:
    """Run `function` over the rows of each value of the column `key`; it gives a table of `schema`."""
    from pyspark.sql.pandas.types import from_arrow_schema

    return frame.groupBy(key).applyInArrow(function, from_arrow_schema(schema))


def rows_to_batches(rows: Iterable[dict[str, Any]], schema: pa.Schema, size: int = 256) -> Iterator[pa.RecordBatch]:
    """Collect rows into record batches of at most `size` rows, or fewer where their texts are long."""
    held: list[dict[str, Any]] = []
    characters = 0
    for row in rows:
        held.append(row)
        characters += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(held) == size or characters >= BATCH_CHARACTERS:
            yield pa.RecordBatch.from_pylist(held, schema=schema)
            held, characters = [], 0
    if held:
        yield pa.RecordBatch.from_pylist(held, schema=schema)


class Stages:
    """The committed outputs of one run: `folder/<stage>/` counts only once `folder/<stage>.json` names it.

    A rerun with the same `identity` (hash of recipe and input) reads what is committed and redoes the rest; an
    output of another identity is never mixed in.
    """

    def __init__(self, spark: SparkSession, folder: Path, identity: str) -> None:
        self.spark, self.folder, self.identity = spark, folder, identity
        self.seconds: dict[str, float] = {}

    def committed(self, name: str) -> dict[str, Any] | None:
        manifest = read_json(self.folder / f"{name}.json")
        return manifest if manifest and manifest.get("identity") == self.identity else None

    def commit(self, name: str, started: float, **facts: Any) -> None:
        self.seconds[name] = time.monotonic() - started
        write_json(self.folder / f"{name}.json", {"identity": self.identity, "seconds": self.seconds[name], **facts})

    def table(self, name: str, make: Callable[[], DataFrame]) -> DataFrame:
        """The committed table `name`, made by `make` if it is not there yet."""
        target = self.folder / name
        done = self.committed(name)
        if done is None:
            started = time.monotonic()
            shutil.rmtree(target, ignore_errors=True)
            make().write.parquet(str(target))
            self.commit(name, started)
        else:
            self.seconds[name] = float(done["seconds"])
        return self.read(name)

    def read(self, name: str) -> DataFrame:
        """The table `name`, which is committed."""
        return self.spark.read.parquet(str(self.folder / name))

    def inside(self, stage: str) -> Checkpoint:
        """Tables of steps inside `stage`, named `stage.step`."""
        return lambda step, frame: self.table(f"{stage}.{step}", lambda: frame)


def task_counter(spark: SparkSession) -> Callable[[], tuple[int, int]]:
    """A function that tells how many tasks have ended and how many there are, of the Spark stages it has seen run."""
    tracker = spark.sparkContext.statusTracker()
    seen: dict[int, tuple[int, int]] = {}

    def count() -> tuple[int, int]:
        running = {number: info for number in tracker.getActiveStageIds() if (info := tracker.getStageInfo(number))}
        for number in seen.keys() - running.keys():
            seen[number] = seen[number][1], seen[number][1]
        seen.update({number: (info.numCompletedTasks, info.numTasks) for number, info in running.items()})
        return sum(done for done, _ in seen.values()), sum(tasks for _, tasks in seen.values())

    return count


def going_on(table: Path) -> tuple[int, int]:
    """Rows of a table on disk that no verdict has ended, and the bytes of all its texts, uncompressed.

    Told by the footers of its Parquet files alone; a text that a file holds once for several rows counts once.
    """
    import pyarrow.parquet as pq

    rows = size = 0
    for path in table.glob("*.parquet"):
        footer = pq.read_metadata(path)
        for group in map(footer.row_group, range(footer.num_row_groups)):
            columns = {column.path_in_schema: column for column in map(group.column, range(group.num_columns))}
            undecided = columns["decision"].statistics if "decision" in columns else None
            rows += undecided.null_count if undecided is not None else group.num_rows
            size += columns["text"].total_uncompressed_size if "text" in columns else 0
    return rows, size


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, or None where there is none or only half of one."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return loaded if isinstance(loaded, dict) else None


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone, by its file `.lock`; the folder is made where it is missing.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def write_json(path: Path, value: Any) -> None:
    """Write JSON in one step: a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, sort_keys=True, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_parts(frame: DataFrame, folder: Path, schema: pa.Schema, *, rows_a_part: int = 200_000) -> dict[str, int]:
    """Write `frame` as `folder/part-NNNNN.parquet`, the same bytes for any partitioning; rows by file.

    Rows are spread over the parts by a hash of `doc_id` and sorted inside a part. The parts appear in a
    temporary folder that takes its name in one step at the end.
    """
    parts = max(1, -(-frame.count() // rows_a_part))
    order = [name for name in (*PLACE, "near_to", "position") if name in schema.names]
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)

    def write(batches: Batches) -> Batches:
        import pyarrow.parquet as pq
        from pyspark import TaskContext

        context = TaskContext.get()
        assert context is not None
        name = f"part-{context.partitionId():05d}.parquet"
        attempt = temporary / f".{name}.{context.taskAttemptId()}"
        rows = 0
        with pq.ParquetWriter(attempt, schema, compression="zstd") as writer:
            for batch in batches:
                table = pa.Table.from_batches([batch]).select(schema.names).cast(schema)
                writer.write_table(table)
                rows += len(table)
        os.replace(attempt, temporary / name)
        yield pa.RecordBatch.from_pylist([{"file": name, "rows": rows}], schema=_PART)

    placed = frame.repartition(parts, "doc_id").sortWithinPartitions(*order)
    written = {row["file"]: row["rows"] for row in map_batches(placed, write, _PART).collect()}
    for number in range(parts):
        # Spark runs no task for a part without rows; an empty file keeps the schema readable.
        name = f"part-{number:05d}.parquet"
        if name not in written and not (number and written):
            _write_empty(temporary / name, schema)
            written[name] = 0
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
    return dict(sorted(written.items()))


_PART = pa.schema([("file", pa.string()), ("rows", pa.int64())])


def _write_empty(path: Path, schema: pa.Schema) -> None:
    import pyarrow.parquet as pq

    pq.write_table(schema.empty_table(), path)
