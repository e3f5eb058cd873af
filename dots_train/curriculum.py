"""From tokens seen to learning rate, batch, mixture and sequence length: the whole recipe as one table in tokens.

The report (section 4.2) gives its schedule in tokens: warm up over 4,000 steps, stay at 3e-4 to 10T tokens,
anneal to 3e-5 over 1T and to 1e-5 over 200B; batches of 64M tokens, 96M from 6T, 128M from 8.3T; then 128B
tokens of long documents at a constant rate. As a table:

    curriculum:
      warmup_steps: 4000
      phases:
        - {name: stable,   until: 6T,    learning_rate: 3e-4, batch: 64M}
        - {name: stable,   until: 8.3T,  learning_rate: 3e-4, batch: 96M}
        - {name: stable,   until: 10T,   learning_rate: 3e-4, batch: 128M}
        - {name: anneal-1, until: 11T,   learning_rate: 3e-5, batch: 128M}
        - {name: anneal-2, until: 11.2T, learning_rate: 1e-5, batch: 128M}
        - {name: long-context, until: 11.328T, learning_rate: 1e-5, batch: 128M, sequence_length: 32768, untie: 0.8}

A phase's learning rate is the one it ends with: it starts from that of the phase before (the first phase from
its own) and moves over the phase's tokens. The report does not say how its rate falls; `decay` chooses,
linear by default. Everything is a pure function of (step, tokens), so a resumed run needs to remember only
these two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Literal

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}

DECAY_GROUPS = ("matrices", "experts", "routers", "embeddings", "norms")
"""Kinds of parameters that a phase may give a weight decay of their own; see dots_train.optim."""


def parse_tokens(text: int | str) -> int:
    """`64M` -> 64_000_000; units K, M, B, T are decimal. Raises ValueError where that is no whole number."""
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMBT]?)\s*", text.replace("_", ""))
    number = Fraction(match[1]) * _UNITS[match[2]] if match else None
    if number is None or number.denominator != 1:
        raise ValueError(f"{text!r} is not a number of tokens; write for example 65536, 64M or 8.3T")
    return int(number)


@dataclass(frozen=True)
class Phase:
    """One row of the table. What is left out is the job's own: sequence length, RoPE base, weight decay."""

    until: int | str
    """Tokens seen at its end, counted from the start of training."""
    learning_rate: float
    """At its end."""
    batch: int | str
    """Tokens in a global batch; made whole sequences by rounding to the nearest."""
    name: str = "stable"
    decay: Literal["linear", "cosine"] = "linear"
    sequence_length: int | None = None
    rope_theta: float | None = None
    """Base of the rotary embedding."""
    mixture: str | None = None
    """The segment of the job's mixture that is read meanwhile; `check_mixture` compares the two tables."""
    untie: float = 0.0
    """Probability of Untie-the-Knots (arXiv 2409.04774) for a window."""
    weight_decay: Mapping[str, float] = field(default_factory=dict)
    """By group of parameters (DECAY_GROUPS)."""

    def __post_init__(self) -> None:
        where = f"phase {self.name!r}"
        if self.end <= 0 or self.batch_tokens <= 0:
            raise ValueError(f"{where}: until and batch must be positive")
        if not (math.isfinite(self.learning_rate) and self.learning_rate >= 0):
            raise ValueError(f"{where}: learning_rate must be a number that is not negative")
        if self.sequence_length is not None and self.sequence_length < 1:
            raise ValueError(f"{where}: sequence_length must be at least 1, found {self.sequence_length}")
        if self.rope_theta is not None and not (math.isfinite(self.rope_theta) and self.rope_theta > 1):
            raise ValueError(f"{where}: rope_theta must be a number over 1, found {self.rope_theta}")
        if not 0 <= self.untie <= 1:
            raise ValueError(f"{where}: untie is a probability, found {self.untie}")
        for group, decay in self.weight_decay.items():
            if group not in DECAY_GROUPS:
                raise ValueError(f"{where}: weight_decay: no group {group!r}; there are {', '.join(DECAY_GROUPS)}")
            if not (math.isfinite(decay) and decay >= 0):
                raise ValueError(f"{where}: weight_decay: {group}: must not be negative, found {decay}")

    @cached_property
    def end(self) -> int:
        return parse_tokens(self.until)

    @cached_property
    def batch_tokens(self) -> int:
        return parse_tokens(self.batch)

    def sequences(self, sequence_length: int, multiple: int = 1) -> int:
        """Sequences in a global batch: the nearest multiple, at least one of them."""
        unit = sequence_length * multiple
        return multiple * max(1, (2 * self.batch_tokens + unit) // (2 * unit))


@dataclass(frozen=True)
class Stage:
    """What one step does."""

    phase: str
    learning_rate: float
    sequences: int
    sequence_length: int
    sample: int
    """Number of the first sample, counted in windows of this sequence length from the start of training: the tokens
    before it over the length. So a loader's place follows from the tokens alone, through any change of length."""
    rope_theta: float | None = None
    """None: the model's own."""
    mixture: str | None = None
    untie: float = 0.0
    weight_decay: Mapping[str, float] = field(default_factory=dict)
    """By group of parameters, where it is not the optimizer's."""


@dataclass(frozen=True)
class Span:
    """A phase as it is stepped through; `step` and `tokens` are those before it."""

    phase: Phase
    step: int
    tokens: int
    steps: int
    sequences: int
    sequence_length: int

    @property
    def batch_tokens(self) -> int:
        return self.sequences * self.sequence_length

    @property
    def end_step(self) -> int:
        return self.step + self.steps

    @property
    def end_tokens(self) -> int:
        """Tokens seen when it is over: a batch belongs to the phase in which its first token lies."""
        return self.tokens + self.steps * self.batch_tokens


@dataclass(frozen=True)
class Curriculum:
    """The table and the warm-up before it."""

    phases: tuple[Phase, ...]
    warmup_steps: int = 0
    batch_multiple: int = 1
    """A global batch is a whole multiple of so many sequences, for layouts to divide; part of the recipe, since no
    number may depend on the layout."""

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("a curriculum needs at least one phase")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must not be negative, found {self.warmup_steps}")
        if self.batch_multiple < 1:
            raise ValueError(f"batch_multiple must be at least 1, found {self.batch_multiple}")
        for before, after in zip(self.phases, self.phases[1:], strict=False):
            if after.end <= before.end:
                raise ValueError(
                    f"phase {after.name!r} ends at {after.until} tokens, not after the phase before it ({before.until})"
                )

    @property
    def tokens(self) -> int:
        """Tokens of the whole curriculum; the last batch may go beyond by less than itself."""
        return self.phases[-1].end

    def at(self, step: int, tokens: int, sequence_length: int) -> Stage | None:
        """The step that follows `step` steps and `tokens` tokens; None when the curriculum is over.

        sequence_length: of the phases that name none. A batch belongs to the phase in which its first token lies.
        """
        index = next((i for i, phase in enumerate(self.phases) if tokens < phase.end), None)
        if index is None:
            return None
        phase = self.phases[index]
        length = phase.sequence_length or sequence_length
        return Stage(
            phase=phase.name,
            learning_rate=self._learning_rate(index, step, tokens),
            sequences=phase.sequences(length, self.batch_multiple),
            sequence_length=length,
            sample=-(-tokens // length),
            rope_theta=phase.rope_theta,
            mixture=phase.mixture,
            untie=phase.untie,
            weight_decay=phase.weight_decay,
        )

    def spans(self, sequence_length: int, step: int = 0, tokens: int = 0) -> list[Span]:
        """Every phase with its steps, in closed form, for a run that took `tokens` in `step` steps so far."""
        spans = []
        for phase in self.phases:
            length = phase.sequence_length or sequence_length
            sequences = phase.sequences(length, self.batch_multiple)
            steps = max(0, -(-(phase.end - tokens) // (sequences * length)))
            spans.append(Span(phase, step, tokens, steps, sequences, length))
            step, tokens = spans[-1].end_step, spans[-1].end_tokens
        return spans

    def steps(self, sequence_length: int, step: int = 0, tokens: int = 0) -> int:
        """How many steps there are in all, when `step` of them took `tokens`."""
        return self.spans(sequence_length, step, tokens)[-1].end_step

    def walk(self, sequence_length: int) -> Iterator[tuple[int, int, Stage]]:
        """Every (step, tokens before it, stage) from the start to the end."""
        step = tokens = 0
        while (stage := self.at(step, tokens, sequence_length)) is not None:
            yield step, tokens, stage
            step, tokens = step + 1, tokens + stage.sequences * stage.sequence_length

    def _learning_rate(self, index: int, step: int, tokens: int) -> float:
        phase = self.phases[index]
        previous = self.phases[max(index - 1, 0)]
        start = previous.end if index else 0
        done = (tokens - start) / (phase.end - start)
        if phase.decay == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        rate = previous.learning_rate + done * (phase.learning_rate - previous.learning_rate)
        return rate * min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else rate


def scaled(curriculum: Curriculum, factor: float, sequence_length: int) -> Curriculum:
    """The same recipe for `factor` times the tokens, 0 < factor <= 1: what `--scale` does.

    Token borders shrink by the factor and batches by its root, because the batch from which on larger ones are wasted
    grows about as the root of the data (Zhang et al., arXiv 2410.21676). So a run has about root(factor) times the
    steps, and the warm-up keeps its share of them. Each phase becomes a whole number of batches, at least one, and each
    batch a multiple of `batch_multiple` sequences, which stays, being the layout's: it bounds how small batches become.
    Rates and sequence lengths stay too.

    Raises:
        ValueError: a factor outside (0, 1].
    """
    if not 0 < factor <= 1:
        raise ValueError(f"scale must be over 0 and at most 1, found {factor}")
    if factor == 1:
        return curriculum
    phases, begins, end = [], 0, 0
    for phase in curriculum.phases:
        length = phase.sequence_length or sequence_length
        smaller = replace(phase, batch=max(1, round(phase.batch_tokens * math.sqrt(factor))))
        batch = smaller.sequences(length, curriculum.batch_multiple) * length
        end += batch * max(1, round((phase.end - begins) * factor / batch))
        phases.append(replace(phase, until=end, batch=batch))
        begins = phase.end
    shrunk = replace(curriculum, phases=tuple(phases), warmup_steps=0)
    share = shrunk.steps(sequence_length) / curriculum.steps(sequence_length)
    return replace(shrunk, warmup_steps=math.ceil(curriculum.warmup_steps * share))


def check_mixture(curriculum: Curriculum, segments: Iterable[tuple[str, int]]) -> None:
    """Whether the segments of a mixture, (name, tokens at its end) in order, are those that the phases name.

    Past its end the last segment goes on. Raises ValueError that names the phase, the segment and their borders.
    """
    table = list(segments)
    begins = 0
    for phase in curriculum.phases:
        ends = [end for _, end in table]
        first = next((i for i, end in enumerate(ends) if begins < end), len(table) - 1)
        last = next((i for i, end in enumerate(ends) if phase.end <= end), len(table) - 1)
        for name, end in table[first : last + 1] if phase.mixture is not None else ():
            if name != phase.mixture:
                raise ValueError(
                    f"phase {phase.name!r} reads {phase.mixture!r} of the mixture from {begins:,} to {phase.end:,} "
                    f"tokens, but its segment {name!r} ends at {end:,}; give both tables the same borders"
                )
        begins = phase.end
