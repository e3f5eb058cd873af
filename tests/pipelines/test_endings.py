"""How the pipelines end when they cannot go on: the exit code, one sentence, and nothing left running."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines import crawl_clean

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError(), "ValueError: no message; "),
        (RuntimeError("\n"), "RuntimeError: ; "),
        (RuntimeError("one\nKeyError: two\nthree"), "RuntimeError: KeyError: two; "),
        (OSError(28, "No space left on device"), "out: the disk is full; "),
    ],
)
def test_a_failure_is_one_sentence(error: Exception, sentence: str) -> None:
    assert crawl_clean.explain_failure(error, "out").startswith(sentence)


# The jobs up to their engines are real; the work there is one task that writes its process id and sleeps.
BEGIN = """
import os, signal, sys, time
from pathlib import Path
from pipelines import crawl_clean, tokenize

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have told its jobs to ignore it
mark = Path(sys.argv[1])

def sleep(item):
    mark.with_suffix(".new").write_text(str(os.getpid()))
    mark.with_suffix(".new").rename(mark)
    time.sleep(600)
    yield item
"""

CRAWL_CLEAN = """
def clean(spark, job, sources, stages, index):
    table = spark.range(1)
    crawl_clean.show("sleep", stages, lambda: table.mapInArrow(sleep, table.schema))

crawl_clean.clean = clean
sys.exit(crawl_clean.main(sys.argv[2:]))
"""

TOKENIZE = """
def work(job, found, stages):
    stages.map("sleep", lambda item: list(sleep(item)), [1, 2], lambda result: (1, 1))

tokenize.tokenize = work
sys.exit(tokenize.main(sys.argv[2:]))
"""


@pytest.mark.engine
@pytest.mark.parametrize(("job", "option"), [(CRAWL_CLEAN, "--cores"), (TOKENIZE, "--workers")], ids=["spark", "ray"])
def test_an_interrupt_ends_the_tasks_of_the_engine(tmp_path: Path, job: str, option: str) -> None:
    mark = tmp_path / "pid"
    given = tmp_path / "in.warc" if job is CRAWL_CLEAN else tmp_path / "in.jsonl"
    given.write_bytes(b"{}\n")
    arguments = [str(mark), "--input", str(given), "--output", str(tmp_path / "out"), option, "1"]
    command = [sys.executable, "-c", BEGIN + job, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not mark.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert said.startswith("error: interrupted") and said.count("\n") == 1
    task = int(mark.read_text())
    deadline = time.monotonic() + 60
    while psutil.pid_exists(task) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(task)


def test_without_java_the_job_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    (tmp_path / "in.warc").touch()
    arguments = ["--input", str(tmp_path / "in.warc"), "--output", str(tmp_path / "out")]
    assert crawl_clean.main(arguments) == 2
    assert "no java was found: install one" in " ".join(capsys.readouterr().err.split())
