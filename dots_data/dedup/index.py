"""The living index: what a later dump must know of earlier ones, so that only what is new costs anything.

    INDEX/index.json            the runs in order and what was taken down; replaced in one step
    INDEX/runs/<name>/<table>/  what each run left (TABLES), never changed in place

A run against an index drops what earlier dumps hold, names the old document, and adds itself. Documents of an earlier
dump come first in every order (survivors.order_key), so that nothing which was kept is ever taken back, and the result
of dumps one after another is the result of all at once: the same documents with the same texts.

Dumps are told apart by their names, which must sort as they came (`2024-10`, `2024-18`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from dots_data.engines import spark as engine
from dots_data.recipe import Recipe
from dots_data.schema import STANDING, WHERE
from dots_data.typed_yaml import build, to_mapping

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FORMAT = "dots.index/2"
# keys: every text that identity removal compared. counts: how often each line was seen. bands, texts: the documents
# that the rules let pass, whether kept or near to another. edges: verified near-duplicates. ends: the fate of every
# document that was judged.
TABLES = ("keys", "counts", "bands", "texts", "edges", "ends")
KEYS = pa.schema(
    [
        *WHERE,
        pa.field("length", pa.int64()),
        pa.field("text_md5", pa.string()),
        pa.field("language", pa.string()),
        pa.field("language_score", pa.float64()),
        *STANDING,
        pa.field("copy_of", pa.string()),
    ]
)


class IndexFault(ValueError):
    """The index cannot be used as asked; the message says why and what to do."""


def run_name(identity: str) -> str:
    """The folder of a run, by the hash of its recipe and input."""
    return hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Run:
    """One run in an index: the dumps that it added, its folder, and the hash of its recipe and input."""

    name: str
    dumps: tuple[str, ...]
    identity: str


@dataclass(frozen=True)
class Earlier:
    """The tables of all runs of an index that a new run asks, each None where there is no run yet."""

    keys: DataFrame | None = None
    counts: DataFrame | None = None
    bands: DataFrame | None = None
    texts: DataFrame | None = None
    ends: DataFrame | None = None

    def kept(self) -> DataFrame | None:
        """The ids (`doc_id`) of the documents that are kept."""
        return None if self.ends is None else self.ends.where("fate = 'kept'").selectExpr("judged_id AS doc_id")


@dataclass(frozen=True)
class Index:
    """An index as its last commit left it. taken_down: `doc_id` and `url` of what must not come back."""

    folder: Path
    recipe: Recipe | None = None
    runs: tuple[Run, ...] = ()
    taken_down: tuple[Mapping[str, str], ...] = ()

    @classmethod
    def open(cls, folder: Path) -> Index:
        """The index in a folder; an empty one where there is none yet.

        Raises:
            IndexFault: what lies there is no index, or one of another format.
        """
        stored = engine.read_json(folder / "index.json")
        if stored is None:
            if (folder / "index.json").exists():
                raise IndexFault(f"{folder / 'index.json'}: cannot be read as an index; restore it from a copy")
            if folder.exists() and any(place.name not in ("runs", ".lock") for place in folder.iterdir()):
                raise IndexFault(f"{folder}: is there and is no index; choose another folder")
            return cls(folder)
        if stored.get("format") != FORMAT:
            raise IndexFault(f"{folder}: an index of format {stored.get('format')!r}; this software makes {FORMAT}")
        runs = tuple(Run(**{**run, "dumps": tuple(run["dumps"])}) for run in stored["runs"])
        recipe = build(Recipe, stored["recipe"], f"{folder / 'index.json'}: recipe")
        return cls(folder, recipe, runs, tuple(stored["taken_down"]))

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over all that the index holds: part of what names a run against it."""
        recipe = self.recipe.hash if self.recipe else None
        facts = [recipe, [run.name for run in self.runs], [dict(one) for one in self.taken_down]]
        return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()

    @staticmethod
    @contextlib.contextmanager
    def lock(folder: Path) -> Iterator[None]:
        """Hold the index alone. Raises IndexFault where another run holds it, or it cannot be written."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(engine.held(folder))
            except BlockingIOError:
                raise IndexFault(f"{folder}: another run or takedown is using the index; wait for it") from None
            except OSError as error:
                raise IndexFault(f"{folder}: cannot be written ({error.strerror}); choose another folder") from error
            yield

    def run_of(self, identity: str) -> Run | None:
        """The run of this recipe and input."""
        return next((run for run in self.runs if run.identity == identity), None)

    def check_new(self, dumps: Sequence[str], recipe: Recipe) -> None:
        """Raise IndexFault unless these dumps can be added under this recipe."""
        if not dumps or not all(dumps):
            raise IndexFault("an index must know what it adds: name the dump (--dump NAME, DUMP=NAME)")
        if self.recipe is not None and self.recipe != recipe:
            raise IndexFault(
                f"{self.folder}: made by recipe {self.recipe.hash}, this one is {recipe.hash}: decisions of two "
                "recipes cannot be mixed; use the recipe of the index, or another INDEX"
            )
        last = max((dump for run in self.runs for dump in run.dumps), default="")
        if min(dumps) <= last:
            raise IndexFault(
                f"{self.folder}: holds dumps up to {last!r}, and {min(dumps)!r} does not come after it; names of dumps "
                "must sort as they came, and each is added once"
            )

    def earlier(self, spark: SparkSession) -> Earlier:
        """What all runs left, as tables."""
        if not self.runs:
            return Earlier()
        return Earlier(**{table.name: spark.read.parquet(*self.paths(table.name)) for table in fields(Earlier)})

    def paths(self, table: str) -> list[str]:
        """The folders of a table, one a run."""
        return [str(self.folder / "runs" / run.name / table) for run in self.runs]

    def write(self, name: str, tables: Mapping[str, DataFrame]) -> None:
        """Write the folder of a run, whole or not at all; it counts only once `commit` names it."""
        assert set(tables) == set(TABLES)
        target = self.folder / "runs" / name
        temporary = target.with_name(f".{name}.tmp")
        for folder in (temporary, target):
            shutil.rmtree(folder, ignore_errors=True)
        for table, frame in tables.items():
            frame.write.parquet(str(temporary / table))
        temporary.rename(target)

    def holds(self, name: str) -> bool:
        """Whether the folder of a run is there and whole."""
        return (self.folder / "runs" / name).is_dir()

    def commit(self) -> None:
        """Make this what the folder holds, in one step, and remove what it no longer names."""
        state = {
            "format": FORMAT,
            "recipe": to_mapping(self.recipe),
            "runs": [asdict(run) for run in self.runs],
            "taken_down": [dict(one) for one in self.taken_down],
        }
        engine.write_json(self.folder / "index.json", state)
        named = {run.name for run in self.runs}
        for place in (self.folder / "runs").iterdir():
            if place.name not in named:
                shutil.rmtree(place, ignore_errors=True)

    def with_run(self, recipe: Recipe, run: Run) -> Index:
        """The index with one more run, whose folder is written."""
        return replace(self, recipe=recipe, runs=(*self.runs, run))
