"""The run directory: run.json, flags.txt and labels.txt beside the checkpoints."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from estimator_tl.config import ModelSpec, RunSpec
from estimator_tl.errors import UserError
from estimator_tl.files import check_literal, write_whole
from estimator_tl.tf_internals.files.checkpoint_state import STATE, Newest, checkpoints, newest_checkpoint

_NO_PART_OF_THE_MODEL = ("backbone_sha256", "allow_unsafe_deserialization")
LABELS = "labels.txt"
_RUN, _FLAGS = "run.json", "flags.txt"


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A run read back from its directory.

    Attributes:
      spec: its settings.
      labels: class names in order.
      record: all of run.json.
    """

    spec: RunSpec
    labels: tuple[str, ...]
    record: Mapping[str, Any]


def is_run(folder: str) -> bool:
    """True if the folder holds a run."""
    return Path(folder, _RUN).is_file()


def read(model_dir: str) -> SavedRun:
    """Reads the run in a folder.

    Raises:
      UserError: the folder holds no run, or its run.json is not readable.
    """
    path = Path(model_dir, _RUN)
    if not path.is_file():
        raise UserError(f"{model_dir} holds no run (no {_RUN}); give the --model_dir of a finished `train`.")
    try:
        record = json.loads(path.read_text())
        return SavedRun(RunSpec.from_json(record["settings"]), tuple(record["labels"]), record)
    except UserError as error:
        raise UserError(f"{path} holds a setting that this version refuses: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not readable as a run ({error}); train again into another folder.") from error


def latest_checkpoint(model_dir: str) -> Newest:
    """Returns the newest whole checkpoint of a run; prints newer damaged checkpoints on standard error.

    Raises:
      UserError: the run has no checkpoint.
    """
    newest = newest_checkpoint(model_dir)
    if newest is None:
        _check_listed(model_dir)
        raise UserError(f"{model_dir} holds no checkpoint yet; run `train` to its first one.")
    newest.report_damaged()
    return newest


def _check_listed(model_dir: str) -> None:
    """Checks that a run without a state file has no checkpoints, as training would silently start over.

    Raises:
      UserError: checkpoints exist, but the state file is missing.
    """
    others = checkpoints(model_dir)
    if others and not Path(model_dir, STATE).exists():
        name = Path(others[-1]).name
        raise UserError(
            f"{model_dir} holds checkpoints up to {name}, but its file {STATE}, which lists them, is missing; copy it "
            f'again, or write the line model_checkpoint_path: "{name}" into it.'
        )


def check_continuable(
    model_dir: str,
    model: ModelSpec,
    labels: Sequence[str],
    backbone_digest: str,
    changeable: Sequence[str] = (),
    may_change: bool = False,
) -> SavedRun | None:
    """Checks that a model_dir is new or holds a run of the same model.

    Args:
      model_dir: the folder.
      model: the settings.
      labels: the classes.
      backbone_digest: the digest of the backbone's content.
      changeable: names of settings that may change during a run.
      may_change: whether the user allows such a change.

    Returns:
      The run; None for a new model_dir.

    Raises:
      UserError: the folder holds another run; the message names the first difference.
    """
    folder = Path(model_dir)
    if not (folder / _RUN).exists():
        if folder.is_dir() and (folder / "checkpoint").exists():
            raise UserError(f"{model_dir} holds checkpoints of another program (no {_RUN}); use another --model_dir.")
        return None
    saved = read(model_dir)
    _check_listed(model_dir)
    old, new = dataclasses.asdict(saved.spec.model), dataclasses.asdict(model)
    old["classes"], new["classes"] = list(saved.labels), list(labels)
    old["backbone content"], new["backbone content"] = saved.record.get("backbone_digest"), backbone_digest
    for name, value in new.items():
        if name in _NO_PART_OF_THE_MODEL:
            continue
        if old[name] != value and not (may_change and name in changeable):
            remedy = "--allow_plan_change to go on with the new one, " * (name in changeable)
            raise UserError(
                f"{model_dir} holds another run: {name} is {old[name]!r} there and {value!r} here; "
                f"use the old setting, {remedy}or another --model_dir."
            )
    return saved


def check_name(model_dir: str) -> None:
    """Checks the name of a model_dir, without its content.

    Raises:
      UserError: the name is an address, or a pattern.
    """
    if "://" in model_dir:
        raise UserError(
            f"{model_dir} is an address, but a run needs a folder; mount it (e.g. by gcsfuse) and name the mount."
        )
    check_literal(model_dir, "--model_dir", writes=True)


def check_writable(folder: str) -> None:
    """Checks that a run or an export can be written to a folder; leaves nothing behind.

    Raises:
      UserError: the folder cannot be written.
    """
    if "://" in folder:
        check_name(folder)
    check_literal(folder, "folder")
    path = Path(folder).absolute()
    existing = next((p for p in (path, *path.parents) if p.exists()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); choose a folder that you may write.") from error


def write(model_dir: str, record: Mapping[str, Any], labels: Sequence[str], flags_text: str) -> None:
    """Writes run.json, labels.txt and flags.txt, each atomically."""
    folder = Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / LABELS, "".join(f"{label}\n" for label in labels))
    write_whole(folder / _FLAGS, flags_text)
    write_record(model_dir, record)


def write_record(model_dir: str, record: Mapping[str, Any]) -> None:
    """Writes run.json."""
    write_whole(Path(model_dir, _RUN), json.dumps(record, indent=2) + "\n")
