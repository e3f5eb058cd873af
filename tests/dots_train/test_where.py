"""What a step read is what it is said to have read: against the batches of a real run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from dots_data import cli
from dots_data.tokens import manifest, versions
from dots_data.tokens.reading import stretches
from dots_data.tokens.versions import Takedown
from dots_data.typed_yaml import ConfigError
from dots_train.config import Job
from dots_train.data import Batch, DataError, ShardReader
from dots_train.trainer import Trainer
from dots_train.where import documents, step_of

from ..dots_data.test_shards import some_rows, write_dataset


class Logging(ShardReader):
    """Notes a hash of the token ids of each batch that the trainer takes, by its first sample."""

    def __init__(self, folder: Path, sequence_length: int, seed: int) -> None:
        super().__init__(folder, sequence_length, seed)
        self.hashes: dict[int, str] = {}

    def batch(self, g: int, n: int) -> Batch:
        batch = super().batch(g, n)
        stream = np.concatenate([batch.tokens_BS.numpy(), batch.targets_BS.numpy()[:, -1:]], axis=1)
        for row, tokens in enumerate(stream):
            self.hashes[g + row] = hash_of(tokens.tolist())
        return batch


def hash_of(tokens: list[int]) -> str:
    return hashlib.blake2b(np.array(tokens, dtype=np.int64).tobytes(), digest_size=8).hexdigest()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    tables = [[some_rows(1, 20, 64), some_rows(2, 9, 64)], [some_rows(3, 15, 64)], [some_rows(4, 30, 64)]]
    write_dataset(tmp_path / "tokens", tables, 64)
    return tmp_path / "tokens"


@pytest.fixture
def ran(job: Job, shards: Path) -> tuple[Job, Logging]:
    job = dataclasses.replace(job, data=str(shards))
    reader = Logging(shards, job.sequence_length, job.seed)
    Trainer(job, reader, log=lambda sentence: None).run()
    return job, reader


def rows_of(folder: Path) -> dict[tuple[str, int], tuple[str, list[int]]]:
    found = {}
    for shard in manifest.read(folder).shards:
        row = 0
        for one in stretches(folder, shard):
            for name, start, end in zip(one.names, one.borders[:-1], one.borders[1:], strict=True):
                found[shard.file, row] = (name, one.values[start:end].tolist())
                row += 1
    return found


def test_every_step_read_what_it_is_said_to_have_read(ran: tuple[Job, Logging], shards: Path) -> None:
    job, reader = ran
    rows, seen = rows_of(shards), set()
    for number in range(1, 13):
        step = step_of(job.output, number)
        assert len(step.samples) == (4 if number <= 8 else 8)
        tokens: dict[int, list[int]] = defaultdict(list)
        for read in documents(job.output, step):
            name, document = rows[read.shard, read.row]
            assert name == read.doc_id and read.url == f"https://a.example/{name}"
            assert read.warc_file == f"crawl-{int(read.shard[6:11])}.warc.gz" and read.warc_offset == 100 * read.row
            tokens[read.sample] += document[read.first : read.last + 1]
        assert list(tokens) == list(step.samples)
        assert {sample: hash_of(ids) for sample, ids in tokens.items()} == {g: reader.hashes[g] for g in step.samples}
        seen |= set(step.samples)
    assert seen == set(reader.hashes) == set(range(8 * 4 + 4 * 8))


def test_shares_of_a_batch(ran: tuple[Job, Logging]) -> None:
    job, _ = ran
    path = Path(job.output) / "metrics.jsonl"
    path.write_text(path.read_text().replace('"shares": 1', '"shares": 2'))
    whole = step_of(job.output, 9).samples
    assert [*step_of(job.output, 9, rank=0).samples, *step_of(job.output, 9, rank=1).samples] == list(whole)
    with pytest.raises(DataError, match="--rank is 0 to 1"):
        step_of(job.output, 9, rank=2)


def test_what_cannot_be_answered(ran: tuple[Job, Logging], shards: Path, tmp_path: Path) -> None:
    job, _ = ran
    with pytest.raises(DataError, match=r"holds steps 1 to 12, not 13"):
        step_of(job.output, 13)
    with pytest.raises(DataError, match="give the output folder of pretrain"):
        step_of(shards, 1)
    moved = shards.rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"cannot be read.*--data names the folder"):
        step_of(job.output, 1)
    assert step_of(job.output, 1, data=moved).manifest == moved / "manifest.json"


def test_a_run_finds_its_own_dataset(ran: tuple[Job, Logging], shards: Path, tmp_path: Path) -> None:
    job, reader = ran
    before = [read.doc_id for read in documents(job.output, step_of(job.output, 2))]
    # The folder goes on: another dataset is its current one, and the earlier is kept.
    shutil.copy(shards / "manifest.json", shards / versions.kept_name(reader.id))
    dataset = manifest.read(shards)
    left = dataset.shards[:2]
    sources = tuple(one for one in dataset.sources if one.name == "books")
    rest = dataclasses.replace(
        dataset, shards=left, sources=sources,
        documents=sum(one.rows for one in left), tokens=sum(one.tokens for one in left),
    )  # fmt: skip
    manifest.write(shards, rest)
    assert [read.doc_id for read in documents(job.output, step_of(job.output, 2))] == before
    with pytest.raises(ConfigError, match=rf"the dataset {reader.id} is .*{versions.kept_name(reader.id)}: give that"):
        Trainer(job, ShardReader(shards, job.sequence_length, job.seed), log=print)
    kept = shards / versions.kept_name(reader.id)
    Trainer(job, ShardReader(kept, job.sequence_length, job.seed), log=lambda sentence: None)
    # Documents of it were taken down.
    kept.unlink()
    versions.write_takedowns(shards, [Takedown(("0" * 32,), (reader.id,), rest.id)])
    with pytest.raises(ConfigError, match=rf"documents of the dataset {reader.id} were taken down"):
        Trainer(job, ShardReader(shards, job.sequence_length, job.seed), log=print)
    with pytest.raises(DataError, match="were taken down"):
        step_of(job.output, 2)
    saved = json.loads((Path(job.output) / "config.json").read_bytes())
    assert saved["data"] == str(shards)


def test_the_command(ran: tuple[Job, Logging], capsys: pytest.CaptureFixture[str]) -> None:
    job, _ = ran
    step = step_of(job.output, 3)
    expected = list(documents(job.output, step))
    assert cli.main(["shards", "where", "--step", "3", job.output, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [dataclasses.asdict(one) for one in expected]
    assert cli.main(["shards", "where", "--step", "3", job.output, "--most", "2"]) == 0
    said = "".join(capsys.readouterr().out.split())
    assert expected[0].doc_id in said and f"and{len(expected) - 2}more" in said
    assert cli.main(["shards", "where", "--step", "99", job.output]) == 2
