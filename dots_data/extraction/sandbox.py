"""Extraction that can be stopped: one child process, killed and replaced when a page costs too much.

Limits on CPU time and memory are the kernel's (RLIMIT_CPU, RLIMIT_AS), so that no code in the child can evade
them. Page content crosses in length-prefixed frames, never as pickle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

from dots_data.extraction import DEFAULT_ENGINE, ENGINES
from dots_data.extraction.limits import STAGE, ExtractionLimits
from dots_data.extraction.selectors import Selectors
from dots_data.extraction.worker import ANSWER, NO_MEMORY, OVER, TEXT, pack
from dots_data.judge import Verdict

# A child is replaced after so many pages, whatever its memory has come to: a start costs as much as some hundred pages.
RECYCLE_PAGES = 10_000
# Most pages fit: each process wakes once a page.
_PIPE_BYTES = 1 << 20


class SandboxError(RuntimeError):
    """The extraction process cannot be started at all."""


class Sandbox:
    """Extracts pages in a child process; a context manager. Not for use by several threads at once.

    `engine` is `module:function`, a function of (html, url) that returns text.
    """

    def __init__(self, limits: ExtractionLimits, engine: str = ENGINES[DEFAULT_ENGINE]) -> None:
        self.limits = limits
        self.engine = engine
        self._child: subprocess.Popen[bytes] | None = None
        self._pages = 0
        # What the child writes to standard error, kept apart from the user's screen.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the sandbox

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def extract(self, text: str | bytes, url: str | None = None) -> str | Verdict:
        """The main text of decoded HTML (or its UTF-8), or why there is none; "" when the engine found no text.

        Raises:
            SandboxError: the child process does not start.
        """
        return self.extract_pruned(text, url, Selectors())[0]

    def extract_pruned(self, text: str | bytes, url: str | None, selectors: Selectors) -> tuple[str | Verdict, int]:
        """`extract` of the page as the selectors leave it, and how many elements they removed.

        A page that they make larger than `max_chars` or `max_tags` ends like one that came so.
        """
        request = pack(text, url, selectors)
        answer, removed = self._extract_once(request)
        if isinstance(answer, Verdict) and answer.rule in ("extraction.memory_bytes", "extraction.crashed"):
            # The memory that was missing may have been that of pages before: only a fresh process can tell.
            self.close()
            answer, removed = self._extract_once(request)
        return answer, removed

    def close(self) -> None:
        """End the child. The next page starts another."""
        child, self._child, self._pages = self._child, None, 0
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()

    def _extract_once(self, request: bytes) -> tuple[str | Verdict, int]:
        if self._pages >= RECYCLE_PAGES:
            self.close()
        child = self._child or self._start()
        self._pages += 1
        deadline = time.monotonic() + self.limits.wall_seconds
        answer = _exchange(child, request, deadline)
        if answer is None:
            return self._buried(child, timed_out=time.monotonic() >= deadline), 0
        status, payload, removed = answer
        if status == TEXT:
            return payload, removed
        if status == OVER:
            limit, _, value = payload.partition(" ")
            return self._verdict(limit, float(value), getattr(self.limits, limit)), removed
        if status == NO_MEMORY:
            return self._verdict("memory_bytes", self.limits.memory_bytes), 0
        return self._verdict("failed", 1, 0, payload), 0

    def _start(self) -> subprocess.Popen[bytes]:
        limits = json.dumps(dataclasses.asdict(self.limits))
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
        # A page's products are small: threads would cost more than they give, and each has its own buffers.
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "dots_data.extraction.worker", limits, self.engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            _widen(pipe.fileno())
        self._child, self._pages = child, 0
        return child

    def _buried(self, child: subprocess.Popen[bytes], timed_out: bool) -> Verdict:
        if timed_out:
            self.close()
            return self._verdict("wall_seconds", self.limits.wall_seconds)
        code, first = child.wait(), self._pages == 1
        self.close()
        if code == -signal.SIGXCPU:
            return self._verdict("cpu_seconds", self.limits.cpu_seconds)
        if code > 0 and first:
            raise SandboxError(f"the extraction process does not start: {self._last_words()}")
        return self._verdict("crashed", 1, 0, signal.Signals(-code).name if code < 0 else f"status {code}")

    def _last_words(self) -> str:
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 2000))
        lines = self._log.read().decode("utf-8", "replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "no reason given")

    def _verdict(self, limit: str, value: float, threshold: float | None = None, detail: str = "") -> Verdict:
        # The value is the limit that was reached: what was measured beyond it would differ from run to run.
        threshold = value if threshold is None else threshold
        return Verdict(STAGE, f"extraction.{limit}", float(value), float(threshold), detail, "quarantined")


def _widen(pipe: int) -> None:
    # A user may be out of the pages that the kernel grants for pipes: a narrow one works as well.
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _exchange(child: subprocess.Popen[bytes], request: bytes, deadline: float) -> tuple[int, str, int] | None:
    """Send a request and read its answer (status, payload, elements removed); None when the child ended or the deadline
    passed.
    """
    assert child.stdin is not None and child.stdout is not None
    to_child, from_child = child.stdin.fileno(), child.stdout.fileno()
    unsent, answer, wanted = memoryview(request), bytearray(), ANSWER.size
    while len(answer) < wanted:
        wait = deadline - time.monotonic()
        readable, writable, _ = select.select([from_child], [to_child] if unsent else [], [], max(0.0, wait))
        if not readable and not writable:
            return None
        try:
            if writable:
                unsent = unsent[os.write(to_child, unsent[: 1 << 20]) :]
            if readable:
                piece = os.read(from_child, 1 << 20)
                if not piece:
                    return None
                answer += piece
        except BrokenPipeError:
            return None
        if len(answer) >= ANSWER.size:
            wanted = ANSWER.size + ANSWER.unpack_from(answer)[1]
    status, _, removed = ANSWER.unpack_from(answer)
    return status, answer[ANSWER.size :].decode("utf-8"), removed
