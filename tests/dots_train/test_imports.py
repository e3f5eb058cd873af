"""The trainer runs where only torch, numpy, pyarrow and PyYAML are installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
# Loaded where the fused experts are asked for, which need triton.
FUSED = {f"dots_train.experts.{name}" for name in ("fused", "kernels", "interpreter")}
FOUND = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "dots_train").rglob("*.py")
}
MODULES = sorted(FOUND - FUSED)

SCRIPT = """
import importlib.abc, importlib.util, sys
blocked = set(sys.argv[1].split(","))

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
find = importlib.util.find_spec
# Who looks before it imports finds nothing.
importlib.util.find_spec = lambda name, package=None: None if name.partition(".")[0] in blocked else find(name, package)
for module in sys.argv[2:]:
    importlib.import_module(module)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & blocked, sorted(loaded & blocked)
"""


def allowed() -> set[str]:
    """The four, and what they themselves require."""
    found: set[str] = set()
    open_names = ["torch", "numpy", "pyarrow", "PyYAML"]
    while open_names:
        name = open_names.pop()
        if name.lower() in found:
            continue
        found.add(name.lower())
        for text in distribution(name).requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                open_names.append(requirement.name)
    return {name.replace("_", "-") for name in found}


@pytest.mark.parametrize("modules", [["dots_train"], MODULES], ids=["package", "every module"])
def test_imports_with_everything_else_absent(modules: list[str]) -> None:
    mine = allowed()
    blocked = {
        package
        for package, owners in packages_distributions().items()
        if not any(owner.lower().replace("_", "-") in mine for owner in owners)
        and package not in {"dots_train", "dots_data", "pipelines", "benchmarks"}
        and not package.startswith("_")
    }
    assert {"pyspark", "ray", "trafilatura", "tokenizers"} & blocked, "run this where the data side is installed"
    command = [sys.executable, "-c", SCRIPT, ",".join(sorted(blocked)), *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_package_alone_loads_no_torch() -> None:
    code = "import dots_train, sys; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
