"""Fixtures that every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# The first call of a compiled loop loads it: no test is a test of time. CI asks for the same examples each time, people
# for new ones.
settings.register_profile("dots", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("dots")

ROOT = Path(__file__).resolve().parent.parent


# Files that take minutes. They are begun first, so that workers end together.
LONG = (
    "pipelines/test_crawl_clean.py",
    "dots_train/test_layouts.py",
    "dots_train/test_fused.py",
    "test_graph_benchmark.py",
    "pipelines/test_index.py",
    "pipelines/test_pretrain_processes.py",
    "pipelines/test_tokenize.py",
    "pipelines/test_pretrain.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    files = [str(ROOT / "tests" / name) for name in LONG]
    items.sort(key=lambda item: files.index(str(item.path)) if str(item.path) in files else len(files))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real pages and texts; tests that ask for it skip where it is absent."""
    # Named by DOTS_REAL_DATA, else a folder beside the checkout: CI has it there.
    folder = Path(os.environ.get("DOTS_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "warc").is_dir():
        pytest.skip(f"no real pages at {folder}; set DOTS_REAL_DATA to a folder that holds warc/ and text/")
    return folder


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """One Spark session for all tests that need one: a start costs seconds."""
    from dots_data.engines.spark import Resources, session

    folder = tmp_path_factory.mktemp("spark")
    with session("tests", Resources(cores=2, memory="1g"), folder, folder / "spark.log") as started:
        yield started
