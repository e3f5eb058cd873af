"""What is shown beside the work: it must neither change the work nor keep an interrupt from it."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from dots_data import console
from dots_data.console import Done, watch


@pytest.fixture(params=[False, True], ids=["file", "terminal"])
def shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed, to a file or to a terminal."""
    text = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=text, force_terminal=request.param, width=160))
    return text


def test_the_result_of_the_work_is_passed_on(shown: io.StringIO) -> None:
    done = Done(0, 3)

    def work() -> int:
        done.steps, done.documents, done.bytes = 3, 1234, 5_000_000
        return 7

    assert watch("a stage", work, lambda: done) == 7
    assert "a stage" in shown.getvalue() and "1,234 docs" in shown.getvalue() and " MB/s" in shown.getvalue()


@pytest.mark.parametrize("error", [TimeoutError("mine"), ValueError("mine"), KeyboardInterrupt()])
def test_so_is_what_it_raises(shown: io.StringIO, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        watch("a stage", raises(error), lambda: Done(0, 1))
    assert raised.value is error


def raises(error: BaseException) -> Callable[[], Any]:
    def work() -> Any:
        raise error

    return work


def test_work_that_ends_at_any_moment_of_the_display_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work ends while a look is under way, just before one and just after one."""
    repeated = console._repeated
    monkeypatch.setattr(console, "_repeated", lambda act: repeated(act, seconds=0.001))
    for _ in range(20):
        looking = threading.Event()

        def look(looking: threading.Event = looking) -> Done:
            looking.set()
            return Done(0, 1)

        assert watch("a stage", lambda looking=looking: looking.wait(30), look)  # type: ignore[misc]


def test_a_look_that_fails_does_not_fail_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    repeated, failed, here = console._repeated, threading.Event(), threading.current_thread()
    monkeypatch.setattr(console, "_repeated", lambda act: repeated(act, seconds=0.001))

    def look() -> Done:
        if threading.current_thread() is not here:
            failed.set()
            raise RuntimeError("the engine is busy")
        return Done(1, 1)

    assert watch("a stage", lambda: failed.wait(30), look)


def test_the_work_has_the_calling_thread() -> None:
    assert watch("a stage", threading.current_thread, lambda: Done(1, 1)) is threading.current_thread()


def test_interruptible_passes_on_results_and_errors() -> None:
    assert console.interruptible(lambda: 7) == 7
    with pytest.raises(TimeoutError, match="mine"):
        console.interruptible(raises(TimeoutError("mine")))


@pytest.mark.parametrize(
    ("done", "before", "shown"),
    [
        (Done(0, 4), Done(0, 4), ""),
        (Done(2, 4, 300, 8_000_000), Done(0, 4), "300 docs, 150 docs/s, 4.0 MB/s"),
        (Done(2, 4, 300), Done(0, 4), "300 docs, 150 docs/s"),
        (Done(2, 4, 300, 8_000_000), Done(1, 4, 200, 6_000_000), "300 docs, 50 docs/s, 1.0 MB/s"),
        (Done(4, 4, 300, 8_000_000), Done(4, 4, 300, 8_000_000), "300 docs"),
    ],
)
def test_the_rate_is_that_of_this_run(monkeypatch: pytest.MonkeyPatch, done: Done, before: Done, shown: str) -> None:
    monkeypatch.setattr(console.time, "monotonic", lambda: 12.0)
    assert console.rate(done, before, started=10.0) == shown


def test_documents_pass_in_proportion_to_the_steps(shown: io.StringIO) -> None:
    whole = Done(0, 0, 1000, 50_000)
    so_far = [console._so_far(Done(steps, total), whole) for steps, total in ((0, 0), (1, 4), (6, 8), (8, 8))]
    assert [(one.documents, one.bytes) for one in so_far] == [(0, 0), (250, 12_500), (750, 37_500), (1000, 50_000)]
    watch("a stage", lambda: None, lambda: Done(2, 3), whole)
    assert "1,000 docs" in shown.getvalue()


def test_a_program_is_named_as_it_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = tmp_path / "a project" / ".venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "dots").touch(mode=0o755)
    monkeypatch.setattr(console.sysconfig, "get_path", lambda name: str(scripts))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.chdir(tmp_path / "a project")
    assert console.program("dots") == ".venv/bin/dots"
    monkeypatch.chdir("/")
    assert console.program("dots") == f"'{str(scripts / 'dots')[1:]}'"
    monkeypatch.setenv("PATH", str(scripts))
    assert console.program("dots") == "dots"


INTERRUPTED = """
import hashlib, signal, sys, time
from dots_data.console import Done, interruptible, watch

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have told its jobs to ignore it

native = lambda: hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)  # a minute, deaf to signals
waiting = lambda: time.sleep(60)
work = {"waiting": waiting, "native": lambda: interruptible(native)}[sys.argv[1]]

def begun():
    print("begun", flush=True)
    work()
    print("ended", flush=True)

try:
    watch("a stage", begun, lambda: Done(0, 1))
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
"""


@pytest.mark.parametrize("kind", ["waiting", "native"])
def test_an_interrupt_waits_for_no_work(kind: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED, kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=120)[0] == "interrupted\n"
        assert process.returncode == 130


@given(st.text(alphabet="\\[]/bolda #1", max_size=12))
def test_no_text_takes_the_tag_after_it_for_text(text: str) -> None:
    rendered = Text.from_markup(f"[bold]{console.safe(text)}[/] end")
    assert rendered.plain.endswith(" end") and [span.style for span in rendered.spans] in ([], ["bold"])
    assert all(span.end == len(rendered.plain) - len(" end") for span in rendered.spans)
