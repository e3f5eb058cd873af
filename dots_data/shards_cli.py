"""`dots shards`: questions about tokenized shards, and what can be done to them. Run `dots shards --help`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from dots_data import console

DESCRIPTION = """Questions about a dataset of token shards, and what can be done to it.

  dots shards verify build/tokens           whether every shard is what the manifest says, to the bit
  dots shards stats build/tokens            documents, tokens, sources, languages, lengths, frequent tokens
  dots shards peek build/tokens             the first documents: where they come from, ids and text
  dots shards where --step 1200 build/model which documents a training step read, with URL and WARC offset
  dots shards export build/tokens --format megatron --output build/megatron
  dots shards select build/tokens --min-tokens 32768 --output build/long
  dots shards append build/tokens build/more                  the documents of another dataset, behind its own
  dots shards takedown build/tokens --url https://a.example/  a document goes, and every byte of it
"""

WHERE = """Which documents a step of a training run read: for a loss spike, or for a question about a page.

  dots shards where --step 1200 build/model             the documents of the whole batch
  dots shards where --step 1200 --rank 3 build/model    those of one of the readers among whom it was divided
  dots shards where --step 1200 build/model --json      all of them, one JSON object a line

`tokens` are those of the document that a sample read, counted from 0. It is told from what the run wrote (config.json,
metrics.jsonl) and the provenance beside the shards, also after `dots shards append`.
"""

EXPORT = """The dataset in the format of another trainer; one folder a source, so that each can be weighted there.

  megatron    tokens.bin and .idx: Megatron-Core's --data-path is OUTPUT/SOURCE/tokens
  datatrove   .ds, .ds.index: datatrove's DatatroveFolderDataset, nanotron
  mds         index.json and .mds: mosaicml-streaming's StreamingDataset, columns doc_id and tokens
  npy         raw .npy and .csv.gz of documents: OLMo

Documents keep their order and their EOS. The tokenizer and dataset.json stand beside. OUTPUT must not be there yet.
"""

SELECT = """Some documents as a dataset of their own: the long ones, for a stage of long contexts; one in N, to be held
out of training for validation, and all others, to train on.

Nothing is encoded again, and documents keep their order.

  dots shards select build/tokens --min-tokens 32768 --suffix=-long --output build/long
  dots shards select build/tokens --one-in 200 --output build/held-out
  dots shards select build/tokens --all-but-one-in 200 --output build/train

Which documents are one in N is told by their ids alone.

The new dataset's manifest says of which one it was made, and by which rule.
"""

APPEND = """Add the documents of another dataset (MORE) to a dataset, behind its own: a new crawl, a new source.

Both must be of one tokenizer, and have no document in common. Shards are linked or copied, never tokenized again. The
dataset gets a new id; the manifest that it had stays as manifest-<id>.json, and a run that was trained on it goes on
with that file as its data.
"""

TAKEDOWN = """Remove documents from a dataset, for good: the shards that hold them are written anew without them.

  dots shards takedown build/tokens --doc-id 3f...c1
  dots shards takedown build/tokens --url https://a.example/page

Earlier datasets of the folder that hold them go too, and a run that was trained on one is told so. What is appended
later may not hold them. Killed on the way, give the same command again. To keep a page out of later crawls as well, use
`dots takedown` on the index; an export or a copy that was made before still holds it.
"""


def add(commands: Any) -> None:
    """Add `shards` and its actions to the commands of `dots`."""
    shards = _parser(commands, "shards", "questions about token shards; export, append, take down", DESCRIPTION)
    actions = shards.add_subparsers(dest="action", required=True, metavar="ACTION")

    action = _parser(actions, "verify", "whether every shard is what the manifest says")
    _folder(action)
    action.set_defaults(run=verify)

    action = _parser(actions, "stats", "documents, tokens, sources, languages, lengths, frequent tokens")
    _folder(action)
    action.set_defaults(run=stats)

    action = _parser(actions, "peek", "the first documents of a shard")
    _folder(action)
    action.add_argument("--shard", type=int, default=0, help="its number in the manifest (default: %(default)s)")
    action.add_argument("--rows", type=int, default=3, help="documents to show (default: %(default)s)")
    action.set_defaults(run=peek)

    action = _parser(actions, "where", "which documents a training step read", WHERE)
    action.add_argument("run_folder", nargs="?", default="build/model", metavar="RUN", help="output of pretrain")
    action.add_argument("--step", type=int, required=True, help="number of the step, from 1")
    action.add_argument("--rank", type=int, help="one reader's share of the batch (default: the whole batch)")
    action.add_argument("--data", metavar="FOLDER", help="the shards, where they are not where the run read them")
    action.add_argument("--most", type=int, default=40, help="rows shown (default: %(default)s)")
    action.add_argument("--json", action="store_true", help="all rows, one JSON object a line")
    action.set_defaults(run=where)

    action = _parser(actions, "export", "the dataset in the format of another trainer", EXPORT)
    _folder(action)
    action.add_argument("--format", required=True, choices=("megatron", "datatrove", "mds", "npy"))
    action.add_argument("--output", required=True, metavar="FOLDER", help="where it goes; must be new or empty")
    action.set_defaults(run=export)

    action = _parser(actions, "select", "long documents, or a share of all, as a dataset of their own", SELECT)
    _folder(action)
    action.add_argument("--min-tokens", type=int, default=1, metavar="N", help="documents of at least N tokens")
    share = action.add_mutually_exclusive_group()
    share.add_argument("--one-in", type=int, default=1, metavar="N", help="of them, one in N, chosen by its id")
    share.add_argument("--all-but-one-in", type=int, metavar="N", help="those that --one-in N leaves")
    action.add_argument("--suffix", default="", help="behind the names of the sources (--suffix=-long)")
    action.add_argument("--output", required=True, metavar="FOLDER", help="where the new dataset goes")
    action.set_defaults(run=select)

    action = _parser(actions, "append", "add the documents of another dataset", APPEND)
    action.add_argument("folder", metavar="DATASET", help="the dataset that grows")
    action.add_argument("more", metavar="MORE", help="the dataset whose shards are added")
    action.set_defaults(run=append)

    action = _parser(actions, "takedown", "remove documents for good", TAKEDOWN)
    action.add_argument("folder", metavar="DATASET")
    action.add_argument("--doc-id", action="append", default=[], metavar="ID", help="a document; may be given again")
    action.add_argument("--url", action="append", default=[], help="all documents of a URL; may be given again")
    action.set_defaults(run=takedown)


def _parser(commands: Any, name: str, says: str, description: str = "") -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=says, description=description or says, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return made


def _folder(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "folder", nargs="?", default="build/tokens", metavar="DATASET",
        help="folder of shards, or the file of an earlier manifest in it (default: %(default)s)",
    )  # fmt: skip


def verify(options: argparse.Namespace) -> int:
    """Check every byte."""
    from dots_data.tokens import shards

    problems = shards.verify(options.folder)
    for problem in problems:
        console.fail(problem)
    if not problems:
        console.console.print(f"{options.folder}: every shard is what the manifest says")
    return 1 if problems else 0


def stats(options: argparse.Namespace) -> int:
    """Count every token."""
    from dots_data.tokens import manifest, statistics

    statistics.show(statistics.measure(options.folder), manifest.manifest_path(options.folder))
    return 0


def peek(options: argparse.Namespace) -> int:
    """Print the first rows of a shard as JSON."""
    from dots_data.tokens import shards

    shown = shards.peek(options.folder, options.shard, options.rows)
    console.console.print_json(json.dumps(shown, default=str, ensure_ascii=False))
    return 0


def where(options: argparse.Namespace) -> int:
    """Print the documents that a step read."""
    from dots_train import where as tracing

    step = tracing.step_of(options.run_folder, options.step, options.rank, options.data)
    found = tracing.documents(options.run_folder, step)
    if options.json:
        for one in found:
            sys.stdout.write(json.dumps(dataclasses.asdict(one), ensure_ascii=True) + "\n")
        return 0
    every = list(found)
    loss = "" if step.loss is None else f", loss {step.loss:.4f}"
    of = ", ".join(map(str, step.manifests))
    console.console.print(
        f"step {step.step}{loss}: samples {step.samples.start:,} to {step.samples.stop - 1:,} of {of}, "
        f"{len({one.doc_id for one in every}):,} documents"
    )
    columns = ("sample", "document", "tokens", "URL", "WARC file", "offset")
    rows = [
        (
            str(one.sample),
            one.doc_id,
            f"{one.first:,}-{one.last:,}",
            one.url or "",
            one.warc_file or "",
            one.warc_offset,
        )
        for one in every[: options.most]
    ]
    console.table("", columns, rows, left=5)
    if len(every) > options.most:
        console.console.print(f"... and {len(every) - options.most:,} more: --most N, or --json for all")
    return 0


def export(options: argparse.Namespace) -> int:
    """Write the dataset in another format."""
    from dots_data.tokens.export import export as write

    console.console.print(f"{write(options.folder, options.format, options.output)}: written as {options.format}")
    return 0


def select(options: argparse.Namespace) -> int:
    """Write the documents of at least so many tokens as a new dataset."""
    from dots_data.tokens import selection

    return selection.run(options)


def append(options: argparse.Namespace) -> int:
    """Add the shards of another dataset."""
    from dots_data.tokens import editing, manifest, versions

    before = manifest.read(options.folder)
    after = editing.append(options.folder, options.more)
    kept = Path(options.folder) / versions.kept_name(before.id)
    console.console.print(
        f"{options.folder}: {after.documents - before.documents:,} documents and {after.tokens - before.tokens:,} "
        f"tokens added; it is the dataset {after.id} now\nwhat it was stays as {kept}"
    )
    return 0


def takedown(options: argparse.Namespace) -> int:
    """Remove documents, and say what went."""
    from dots_data.tokens import editing
    from dots_data.tokens.shards import ShardError

    if not options.doc_id and not options.url:
        raise ShardError("name what shall go: --doc-id ID or --url URL")
    done = editing.takedown(options.folder, options.doc_id, options.url)
    for doc_id, url in done.documents:
        console.console.print(f"gone: {doc_id} {console.safe(url)}")
    for name in done.files:
        console.console.print(f"removed: {Path(options.folder) / name}")
    if not done.documents:
        console.console.print("a takedown that was interrupted is finished")
    for dataset in done.datasets:
        console.console.print(f"no longer there: the dataset {dataset}")
    console.console.print(
        f"{options.folder}: is the dataset {done.dataset.id} now, {done.dataset.documents:,} documents; exports and "
        "copies that were made before still hold what went"
    )
    return 0
