"""The benchmark of components and survivors, small: killed in two middle rounds, resumed, equal to the references."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.engine
def test_a_graph_is_settled_right_after_two_kills(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.graph", "--edges", "3000", "--memory", "1g"]
    places = ["--folder", str(tmp_path / "graph"), "--results", str(tmp_path / "results")]
    ran = subprocess.run([*command, *places], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads((tmp_path / "results" / "graph.json").read_text())
    assert result["wrong_components"] == result["wrong_survivors"] == 0 and result["made_again"] == []
    assert result["killed_after"] == ["components.heads-3", "survivors.dropped-3"]
    # The chain is longer than the rounds: what is left of it is settled by component.
    assert "survivors.dropped-by-component" in result["seconds"]
    assert 0 < result["dropped"] < result["vertices"]
