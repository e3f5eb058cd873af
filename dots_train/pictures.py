"""Two pictures of a run as self-contained SVG: its curves over tokens, and the load of its experts by domain.

Written by hand, since they are lines and rectangles: any browser shows them, and nothing needs to be installed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from dots_train import metrics
from dots_train.health import LOADS_FILE, Loads, read_loads

FOLDER = "pictures"
_WIDTH, _PANEL, _LEFT, _TOP, _GAP = 960, 190, 80, 54, 46
_POINTS = 800  # of a curve; more steps are drawn as their mean and range


def draw(run: Path) -> list[str]:
    """Write the pictures of a run into RUN/pictures; returns a sentence for each, or why there is none.

    Raises:
        ValueError: the folder holds no run, or damaged counts.
    """
    records = metrics.read(run)
    if not records:
        raise ValueError(f"{run}: holds no training run (no metrics.jsonl with a step); name its output folder")
    loads = read_loads(run)
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    said = [_write(folder / "curves.svg", curves(records, run.name))]
    if loads is None:
        said.append(f"no picture of the experts' load: {run} has no {LOADS_FILE}, which an evaluation by domain writes")
    else:
        said.append(_write(folder / "expert-load.svg", load_map(loads)))
    return said


def _write(path: Path, picture: str) -> str:
    path.write_text(picture, encoding="utf-8")
    return f"{path} was written"


class Point(NamedTuple):
    """Some consecutive steps."""

    x: float
    mean: float
    low: float
    high: float


def curves(records: Sequence[dict[str, Any]], name: str = "") -> str:
    """Loss, learning rate and gradient norm over tokens; borders of phases are named."""
    panels = [
        ("loss", "loss, nats a token"),
        ("learning_rate", "learning rate"),
        ("gradient_norm", "gradient norm before clipping"),
        *(
            [("load", "load of the busiest expert over the mean, worst layer")]
            if any(record.get("load") for record in records)
            else []
        ),
    ]
    most = max(float(record["tokens"]) for record in records)
    body = [label(_LEFT, 22, f"{name}: {len(records):,} steps, {_short(most)} tokens", size=14)]
    for number, (key, title) in enumerate(panels):
        top = _TOP + number * (_PANEL + _GAP)
        body += _panel(top, title, _points(records, key), most, _borders(records), named=number == 0)
    return svg(_WIDTH, _TOP + len(panels) * (_PANEL + _GAP), body)


def _points(records: Sequence[dict[str, Any]], key: str) -> list[Point]:
    """At most _POINTS, each of as many steps; numbers that are missing or not finite are left out."""
    found = []
    for record in records:
        value = record.get(key)
        value = max(value, default=None) if isinstance(value, list) else value
        if isinstance(value, (int, float)) and math.isfinite(value):
            found.append((float(record["tokens"]), float(value)))
    size = max(1, math.ceil(len(found) / _POINTS))
    groups = (found[first : first + size] for first in range(0, len(found), size))
    return [
        Point(group[-1][0], sum(y for _, y in group) / len(group), *_range(y for _, y in group)) for group in groups
    ]


def _range(values: Iterable[float]) -> tuple[float, float]:
    listed = list(values)
    return min(listed), max(listed)


def _borders(records: Sequence[dict[str, Any]]) -> list[tuple[float, str]]:
    """(tokens, name) where each phase begins."""
    borders, tokens = [], 0.0
    for phase, group in groupby(records, key=lambda record: str(record.get("phase", ""))):
        borders.append((tokens, phase))
        tokens = float(list(group)[-1]["tokens"])
    return borders


def _panel(
    top: int, title: str, points: list[Point], most: float, borders: list[tuple[float, str]], named: bool
) -> Iterator[str]:
    right, bottom = _WIDTH - 20, top + _PANEL
    yield label(_LEFT, top - 6, title, weight="bold")
    yield f'<rect x="{_LEFT}" y="{top}" width="{right - _LEFT}" height="{_PANEL}" fill="none" stroke="#999"/>'
    if not points:
        yield label(_LEFT + 10, top + 20, "no number of this kind")
        return
    low, high = min(point.low for point in points), max(point.high for point in points)
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    across = (right - _LEFT) / most
    up = _PANEL / ((high - low) or 1.0)

    def place(x: float, y: float) -> str:
        return f"{_LEFT + x * across:.1f},{bottom - (y - low) * up:.1f}"

    for tick in ticks:
        y = bottom - (tick - low) * up
        yield f'<path d="M{_LEFT},{y:.1f}H{right}" stroke="#ddd"/>'
        yield label(_LEFT - 6, y + 4, f"{tick:.6g}", anchor="end")
    for tick in _ticks(0, most):
        if tick <= most:
            yield label(_LEFT + tick * across, bottom + 15, _short(tick), anchor="middle")
    for tokens, phase in borders:
        x = _LEFT + tokens * across
        yield f'<path d="M{x:.1f},{top}V{bottom}" stroke="#bbb" stroke-dasharray="3 3"/>'
        if named:
            yield label(x + 4, top + 13, phase, colour="#777")
    band = [place(p.x, p.high) for p in points] + [place(p.x, p.low) for p in reversed(points)]
    yield f'<polygon points="{" ".join(band)}" fill="#9ecae1" stroke="#9ecae1" stroke-width="0.5"/>'
    line = " ".join(place(p.x, p.mean) for p in points)
    yield f'<polyline points="{line}" fill="none" stroke="#08519c" stroke-width="1.3"/>'


def _ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from below `low` to above `high`."""
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-300):  # a flat line
        high = low + (abs(low) if abs(low) > 1e-300 else 1.0)
    raw = (high - low) / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


_LEVELS = tuple(number / 2 for number in range(-6, 7))
"""Of the logarithm to base 2 of the load over an even one: from an eighth to eight times, in steps of a half."""
_NO_TOKEN = "#222222"
_ROW = 8  # panels


def load_map(loads: Loads) -> str:
    """The report's Figure 5: a panel a layer, a row an expert, a column a domain; colour is load over an even load."""
    layers, experts, domains = len(loads.counts[0]), len(loads.counts[0][0]), len(loads.domains)
    wide, high = max(6, min(18, 120 // domains)), max(2, min(14, 480 // experts))
    labels = 14 + 6 * min(24, max(map(len, loads.domains)))
    across, down = domains * wide + 40, experts * high + labels + 30
    columns = min(_ROW, layers)
    width = max(40 + columns * across, 620)
    title = f"load of each expert by domain over an even load, step {loads.step:,}"
    body = [label(20, 20, title, size=14), *_legend(20, 32)]
    for layer in range(layers):
        left, top = 50 + layer % columns * across, 90 + layer // columns * down
        counts = [domain[layer] for domain in loads.counts]
        body += _layer(left, top, wide, high, f"layer {layer + loads.first_layer}", counts, loads.domains)
    return svg(width, 90 + -(-layers // columns) * down, body)


def _layer(
    left: int, top: int, wide: int, high: int, title: str, counts: list[list[int]], domains: Sequence[str]
) -> Iterator[str]:
    yield label(left, top - 6, title, weight="bold")
    cells: dict[str, list[str]] = {}
    for column, of_domain in enumerate(counts):
        even = sum(of_domain) / len(of_domain)
        row = 0
        for colour, group in groupby(_colour(count, even) for count in of_domain):
            rows = len(list(group))
            x, y = left + column * wide, top + row * high
            cells.setdefault(colour, []).append(f"M{x},{y}h{wide}v{rows * high}h-{wide}z")
            row += rows
    for colour, paths in sorted(cells.items()):
        yield f'<path d="{"".join(paths)}" fill="{colour}"/>'
    experts = len(counts[0])
    frame = f'width="{len(counts) * wide}" height="{experts * high}" fill="none" stroke="#999"'
    yield f'<rect x="{left}" y="{top}" {frame}/>'
    for expert in range(0, experts, max(1, experts // 8)):
        yield label(left - 4, top + (expert + 0.5) * high + 4, str(expert), anchor="end", size=9)
    for column, domain in enumerate(domains):
        shown = domain if len(domain) <= 24 else f"{domain[:23]}…"
        yield label(left + (column + 0.7) * wide, top + experts * high + 10, shown, anchor="end", size=10, turn=-60)


def _colour(count: int, even: float) -> str:
    if count <= 0 or even <= 0:
        return _NO_TOKEN
    level = max(_LEVELS[0], min(_LEVELS[-1], round(2 * math.log2(count / even)) / 2))
    return _shade(level)


def _shade(level: float) -> str:
    """White at 0, to blue below, to red above."""
    full = (33, 102, 172) if level < 0 else (178, 24, 43)
    share = abs(level) / _LEVELS[-1]
    return "#" + "".join(f"{round(247 + share * (channel - 247)):02x}" for channel in full)


def _legend(left: int, top: int) -> Iterator[str]:
    for number, level in enumerate(_LEVELS):
        x = left + number * 26
        yield f'<rect x="{x}" y="{top}" width="26" height="12" fill="{_shade(level)}" stroke="#ccc"/>'
        if level == int(level):
            name = f"{2**level:g}x" if level >= 0 else f"1/{2**-level:g}"
            yield label(x + 13, top + 25, name, anchor="middle", size=10)
    x = left + len(_LEVELS) * 26 + 20
    yield f'<rect x="{x}" y="{top}" width="26" height="12" fill="{_NO_TOKEN}"/>'
    yield label(x + 32, top + 10, "no token", size=10)


class Lane(NamedTuple):
    """What a rank of a pipeline does from `start` to `end`: one pass, or two together, each (is it forward, through
    which of the rank's parts of the model); for `exposed` of that time it waits for all-to-alls."""

    start: float
    end: float
    exposed: float
    passes: tuple[tuple[bool, int], ...]


_FORWARD = ("#c6dbef", "#9ecae1", "#6baed6", "#4292c6")
_BACK = ("#fdd0a2", "#fdae6b", "#fd8d3c", "#f16913")
_WAITS = "#67000d"


def gantt(drawn: Sequence[tuple[str, Sequence[Sequence[Lane]]]]) -> str:
    """Pipelines below each other on one axis of time: a row a rank, white where it has nothing to do.

    A pair is one bar, its forward half above; the wait for all-to-alls stands at its end, wherever it was in it.
    """
    row, left, right = 14, 60.0, _WIDTH - 10.0
    last = max(lane.end for _, ranks in drawn for lanes in ranks for lane in lanes)
    across = (right - left) / last
    legend = [(_FORWARD[1], "forward"), (_BACK[1], "backward"), (_WAITS, "waits for an all-to-all")]
    body = [label(20, 20, "deeper colours: later parts of the model", size=11)]
    for number, (colour, name) in enumerate(legend):
        at = 330 + 130 * number
        body += [f'<rect x="{at}" y="10" width="20" height="12" fill="{colour}"/>', label(at + 26, 20, name)]
    top = 44
    for title, ranks in drawn:
        body.append(label(left, top, title, weight="bold"))
        cells: dict[str, list[str]] = {}
        for number, lanes in enumerate(ranks):
            y = top + 6 + number * row
            body.append(label(left - 6, y + row - 4, f"rank {number}", anchor="end", size=9))
            for lane in lanes:
                x, wide = left + lane.start * across, max(0.1, (lane.end - lane.start - lane.exposed) * across - 0.6)
                high = (row - 2) / len(lane.passes)
                for half, (ahead, part) in enumerate(lane.passes):
                    colour = (_FORWARD if ahead else _BACK)[part % 4]
                    cells.setdefault(colour, []).append(
                        f"M{x:.2f},{y + half * high:.1f}h{wide:.2f}v{high:.1f}h-{wide:.2f}z"
                    )
                waits = lane.exposed * across
                cells.setdefault(_WAITS, []).append(f"M{x + wide:.2f},{y}h{waits:.2f}v{row - 2}h-{waits:.2f}z")
        body += [f'<path d="{"".join(paths)}" fill="{colour}"/>' for colour, paths in sorted(cells.items())]
        frame = f'width="{right - left}" height="{len(ranks) * row}" fill="none" stroke="#999"'
        body.append(f'<rect x="{left}" y="{top + 5}" {frame}/>')
        top += len(ranks) * row + 34
    return svg(_WIDTH, top, body)


def label(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 11,
    weight: str = "normal",
    colour: str = "#222",
    turn: int = 0,
) -> str:
    """A label; names from outside are escaped, and control characters, which XML forbids, replaced."""
    clean = escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))
    turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    style = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}{turned}>{clean}</text>'


def _short(tokens: float) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if tokens >= size:
            return f"{tokens / size:.4g}{unit}"
    return f"{tokens:g}"


def svg(width: int, height: int, body: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" shape-rendering="auto">'
    )
    background = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([head, background, *body, "</svg>", ""])
