"""The output folder of a run: which run it is of, and that it is not mixed with another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dots_data.tokens import versions
from dots_data.typed_yaml import ConfigError, to_mapping
from dots_train.config import Job, differences
from dots_train.reading import Reader

CONFIG_FILE = "config.json"
SUMMARY_FILE = "summary.json"


def about_data(job: Job, reader: Reader) -> dict[str, Any]:
    """What those who ask which documents a step read must know besides the identity."""
    mixture = getattr(reader, "mixture", None)
    manifests = getattr(reader, "manifests", (reader.manifest,))
    return {
        "data": list(job.folders),
        "datasets": [manifest.id for manifest in manifests],
        "mixture": to_mapping(mixture.config) if mixture is not None else None,
    }


def claim(output: Path, wanted: dict[str, Any], about: dict[str, Any]) -> None:
    """Write the run's identity into its output folder, or find the same one there.

    about: where the shards lie, and how they are mixed; written too, but another place is no other run, nor is another
        mixture as long as it has the same past, which the loader's state knows.

    Raises:
        ConfigError: the folder cannot be written, holds another run, or holds part of a run and no identity.
    """
    path = output / CONFIG_FILE
    again = f"choose another output folder, or remove {output} to start anew"
    try:
        if path.exists():
            saved = {name: value for name, value in json.loads(path.read_text("utf-8")).items() if name not in about}
            changed = differences(saved, wanted)
            if changed:
                said = [*changed, *_what_became(saved, wanted, about["data"])]
                raise ConfigError(f"{output}: holds a run of another configuration ({'; '.join(said)}); {again}")
            write_json(path, {**wanted, **about})
            return
        if any((output / name).exists() for name in ("metrics.jsonl", "checkpoints", SUMMARY_FILE)):
            raise ConfigError(f"{output}: holds a run but no {CONFIG_FILE} that says which; {again}")
        output.mkdir(parents=True, exist_ok=True)
        write_json(path, {**wanted, **about})
    except OSError as error:
        raise ConfigError(f"{output}: cannot be used as the output folder ({error.strerror})") from error
    except (json.JSONDecodeError, AttributeError) as error:
        raise ConfigError(f"{path}: damaged; {again}") from error


def _what_became(saved: dict[str, Any], wanted: dict[str, Any], data: list[str]) -> list[str]:
    """Of the dataset of a run, if it is no longer the one that is there: documents may have been added or removed."""
    earlier = saved.get("manifest")
    changed = earlier and earlier != wanted.get("manifest") and len(data) == 1
    return [versions.fate(data[0], str(earlier))] if changed else []


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)
