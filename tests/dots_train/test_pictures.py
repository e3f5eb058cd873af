"""The pictures are whole SVG, show the numbers that they were made of, and let no name out of its label."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dots_train.health import Loads, write_loads
from dots_train.pictures import _colour, _ticks, curves, draw, load_map

SVG = "{http://www.w3.org/2000/svg}"


def records(steps: int, **values: Any) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "tokens": step * 1000,
            "phase": "stable" if step <= steps // 2 else "anneal",
            "loss": 10 / step,
            "learning_rate": 1e-3,
            "gradient_norm": 1.0,
            "load": [1.0, 1.0 + 1 / step],
            **values,
        }
        for step in range(1, steps + 1)
    ]


def texts(picture: str) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def line(picture: str, number: int) -> list[tuple[float, float]]:
    """The points of a panel's curve, in pixels."""
    node = list(ElementTree.fromstring(picture).iter(f"{SVG}polyline"))[number]
    return [tuple(map(float, point.split(","))) for point in node.attrib["points"].split()]  # type: ignore[misc]


def test_curves_show_the_records() -> None:
    picture = curves(records(20), "build/mine")
    shown = texts(picture)
    assert "build/mine: 20 steps, 20K tokens" in shown
    assert [name for name in ("stable", "anneal") if name in shown] == ["stable", "anneal"]
    loss = line(picture, 0)
    assert len(loss) == 20
    assert [x for x, _ in loss] == pytest.approx([80 + 43 * step for step in range(1, 21)], abs=0.1)
    heights = [y for _, y in loss]
    assert heights == sorted(heights), "a falling loss goes down, and y grows downwards"
    # The loss at step s is 10 / s, on an axis that is linear: the same share of the height between any three.
    assert (heights[1] - heights[0]) / (heights[3] - heights[0]) == pytest.approx(5 / 7.5, rel=0.01)


def test_a_long_run_is_drawn_in_few_points_and_loses_no_peak() -> None:
    many = records(5000, loss=2.0)
    many[3333]["loss"] = 9.0
    picture = curves(many)
    assert len(line(picture, 0)) <= 800
    band = next(ElementTree.fromstring(picture).iter(f"{SVG}polygon")).attrib["points"].split()
    peaks = [point for point in band if float(point.split(",")[1]) < 120]
    assert len(peaks) == 1


@pytest.mark.parametrize(
    "values", [{"loss": float("nan")}, {"loss": None}, {"loss": 2.0}, {"load": []}, {"gradient_norm": 0.0}]
)
def test_curves_of_odd_records(values: dict[str, Any]) -> None:
    ElementTree.fromstring(curves(records(3, **values)))
    ElementTree.fromstring(curves(records(1, **values)))


HOSTILE = ["<script>alert(1)</script>", 'a" onload="x', "&amp;", "]]>", "\x00\x1b[31m", "x" * 500, "数学"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_in_their_labels(name: str) -> None:
    loads = Loads(1, 0, (name, "b"), [[[1, 2]], [[3, 4]]])
    for picture in (load_map(loads), curves(records(4, phase=name), name)):
        root = ElementTree.fromstring(picture)
        assert {node.tag.removeprefix(SVG) for node in root.iter()} <= {
            "svg",
            "rect",
            "path",
            "text",
            "polygon",
            "polyline",
        }
        assert all(not key.startswith("on") for node in root.iter() for key in node.attrib)
    assert any(name[:10].replace("\x00\x1b", "\ufffd\ufffd") in text for text in texts(picture))


def cells(picture: str) -> dict[tuple[float, float], str]:
    """Colour of every cell of the heat map, by its corner; runs of one colour are cut into cells again."""
    found = {}
    for node in ElementTree.fromstring(picture).iter(f"{SVG}path"):
        for x, y, width, height in re.findall(r"M([\d.]+),([\d.]+)h([\d.]+)v([\d.]+)h", node.attrib["d"]):
            assert width == "18"
            for row in range(int(float(height)) // 14):
                found[float(x), float(y) + row * 14] = node.attrib["fill"]
    return found


def test_a_heat_map_has_a_cell_for_each_expert_of_each_layer_and_domain() -> None:
    counts = [[[8, 8, 8, 8], [0, 0, 16, 16]], [[2, 4, 8, 18], [5, 5, 5, 5]]]
    picture = load_map(Loads(123, 1, ("zh", "en"), counts))
    found = cells(picture)
    assert len(found) == 2 * 2 * 4
    colours = [found[place] for place in sorted(found)]
    columns = [colours[first : first + 4] for first in range(0, 16, 4)]
    even, none, twice, quarter = "#f7f7f7", "#222222", _colour(16, 8), _colour(2, 8)
    assert columns[0] == [even] * 4
    assert columns[1] == [quarter, _colour(4, 8), even, _colour(18, 8)]
    assert columns[2] == [none, none, twice, twice]
    assert columns[3] == [even] * 4
    assert {"layer 1", "layer 2", "zh", "en", "no token", "1x", "8x", "1/8"} <= set(texts(picture))


def test_colours_tell_more_from_less() -> None:
    assert _colour(10, 10) == "#f7f7f7"
    assert _colour(0, 10) == "#222222"
    reds = [int(_colour(count, 10)[3:5], 16) for count in (10, 20, 40, 80)]
    assert reds == sorted(reds, reverse=True)
    assert _colour(80, 10) == _colour(800, 10)
    assert int(_colour(80, 10)[1:3], 16) > int(_colour(80, 10)[5:7], 16), "over: red"
    assert int(_colour(1, 10)[1:3], 16) < int(_colour(1, 10)[5:7], 16), "under: blue"


def test_the_released_models_map_is_not_too_large_to_open() -> None:
    counts = [[[(7 * e + 3 * layer + d) % 40 for e in range(128)] for layer in range(61)] for d in range(10)]
    picture = load_map(Loads(1, 1, tuple(f"domain-{d}" for d in range(10)), counts))
    ElementTree.fromstring(picture)
    assert len(picture) < 4_000_000


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
@example(0.0, 5e-324)
def test_ticks_are_round_and_hold_the_range(low: float, size: float) -> None:
    ticks = _ticks(low, low + size)
    assert 2 <= len(ticks) <= 12
    slack = 1e-6 * max(1.0, abs(low), size)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + size - slack
    assert ticks == sorted(set(ticks))


def test_draw_writes_both_pictures(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records(5)))
    said = draw(tmp_path)
    assert said[0] == f"{tmp_path / 'pictures' / 'curves.svg'} was written"
    assert said[1].startswith("no picture of the experts' load")
    write_loads(tmp_path, Loads(5, 1, ("zh",), [[[1, 2]]]))
    assert draw(tmp_path)[1] == f"{tmp_path / 'pictures' / 'expert-load.svg'} was written"
    for name in ("curves.svg", "expert-load.svg"):
        ElementTree.parse(tmp_path / "pictures" / name)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no training run"):
        draw(tmp_path)
    assert list(tmp_path.iterdir()) == []
