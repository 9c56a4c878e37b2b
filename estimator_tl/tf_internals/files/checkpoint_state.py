"""The newest checkpoint of a folder. Only this module reads and writes the state file ``checkpoint``.

TensorFlow's own `latest_checkpoint` has three faults. It looks for files by a pattern, so it finds nothing in a folder
named ``exp[lr=0.1]``. It does not check that the files are whole. And it trusts absolute paths that were written before
the folder was moved.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
import sys
from typing import Any

from estimator_tl.compat.versions import load_tensorflow
from estimator_tl.errors import UserError
from estimator_tl.files import check_literal, write_whole
from estimator_tl.tf_internals.files.bundles import damage

STATE = "checkpoint"
CHANGED = "changed.ckpt"  # the name of checkpoints to which `extend_checkpoint` added variables
_INPUT_STATES = f"{STATE}_input*"  # TensorFlow's CheckpointInputPipelineHook writes them, beside input.ckpt-STEP
_PREFIX = re.compile(r"((?!input[._]).*\.ckpt-(\d+))\.index")


@dataclasses.dataclass(frozen=True)
class Newest:
    """The newest whole checkpoint of a folder.

    Attributes:
      path: its prefix.
      damaged: each newer checkpoint that is not whole: its file name and its fault, newest first.
    """

    path: str
    damaged: tuple[tuple[str, str], ...] = ()

    @property
    def step(self) -> int:
        """The global step in the checkpoint."""
        return step_of(self.path)

    def report_damaged(self) -> None:
        """Reports skipped checkpoints on standard error, in one line; prints nothing if there are none."""
        if self.damaged:
            folder, name = os.path.split(self.path)
            print(f"{_listing(self.damaged)} in {folder}; taking {name}", file=sys.stderr)


def newest_checkpoint(model_dir: str | None) -> Newest | None:
    """Returns the newest whole checkpoint that the state file of a folder lists; None if there is no state file.

    A folder may have been moved or copied. So this looks for the listed files beside the state file first, whatever
    their paths say. If the newest checkpoint is damaged, the result is the next older whole one, which may be one that
    the state file no longer lists.

    Raises:
      UserError: no listed checkpoint is whole, or TensorFlow cannot read from a folder with this name.
    """
    if not model_dir:
        return None
    paths = listed_checkpoints(model_dir)
    if paths is None:
        return None
    check_literal(model_dir, "model_dir")
    damaged = [] if paths else [(STATE, "it is not readable")]
    for path in [*reversed(paths), *_unlisted(model_dir, paths)]:
        fault = _fault(path)
        if not fault:
            return Newest(path, tuple(damaged))
        if listed_checkpoints(model_dir) != paths:  # a training run is active and has removed a listed checkpoint
            return newest_checkpoint(model_dir)
        damaged.append((os.path.basename(path), fault))
    raise UserError(
        f"no checkpoint in {model_dir} is whole: {_listing(damaged)}; copy the run again, or remove its file "
        f"{STATE} to begin at step 0."
    )


def latest_checkpoint(model_dir: str | None) -> str | None:
    """Returns the prefix of `newest_checkpoint`, or None."""
    newest = newest_checkpoint(model_dir)
    return None if newest is None else newest.path


def step_of(path: str) -> int:
    """Returns the global step in a checkpoint."""
    return int(load_tensorflow().train.load_variable(path, "global_step"))


def listed_checkpoints(model_dir: str, name: str = STATE) -> list[str] | None:
    """Returns the prefixes in a state file, the newest last; empty if it is not readable, None if it is missing.

    This does not check that the checkpoints are whole.
    """
    state = _read_state(model_dir, name)
    if state is None:
        return None
    newest = state.model_checkpoint_path
    paths = [*(path for path in state.all_model_checkpoint_paths if path != newest), newest]
    return [_locate(model_dir, path) for path in paths if path]


def checkpoints(model_dir: str) -> list[str]:
    """Returns the prefixes of all checkpoints in a folder that have an index, oldest first, listed or not."""
    names = (_PREFIX.fullmatch(name) for name in os.listdir(model_dir))
    numbered = sorted((int(match[2]), match[1]) for match in names if match)
    return [os.path.join(model_dir, name) for _, name in numbered]


def correct_state(model_dir: str) -> Newest | None:
    """Makes the state file of a folder list its newest whole checkpoint last, by relative paths.

    Sessions restore the checkpoint that this file lists last. The state files of inputs then list the states that were
    saved with that checkpoint.

    Returns:
      The newest whole checkpoint.

    Raises:
      UserError: for the same reasons as `newest_checkpoint`.
    """
    newest = newest_checkpoint(model_dir)
    if newest is None:
        return None
    older = [path for path in listed_checkpoints(model_dir) or () if path != newest.path and not _fault(path)]
    write_state(model_dir, [*_inside(model_dir, older), newest.path])
    if "://" not in model_dir:
        for state in glob.glob(os.path.join(glob.escape(model_dir), _INPUT_STATES)):
            _correct_input_state(model_dir, os.path.basename(state), newest)
    return newest


def _correct_input_state(model_dir: str, name: str, newest: Newest) -> None:
    paths = _inside(model_dir, [path for path in listed_checkpoints(model_dir, name) or () if not _fault(path)])
    if newest.damaged:
        paths = [path for path in paths if (_number(path) or 0) <= newest.step]
    if paths:
        write_state(model_dir, paths, name)


def _inside(model_dir: str, paths: list[str]) -> list[str]:
    """Returns the paths inside a folder.

    A saver deletes old checkpoints that the state file lists. It must not delete files of other folders.
    """
    return [path for path in paths if os.path.dirname(os.path.normpath(path)) == os.path.normpath(model_dir)]


def write_state(model_dir: str, paths: list[str], name: str = STATE) -> None:
    """Writes a state file, unless it already has this content.

    Args:
      model_dir: the folder.
      paths: prefixes, the newest last; a path inside the folder is written as a bare file name.
      name: name of the state file.
    """
    from tensorflow.python.training import checkpoint_state_pb2

    inside = set(_inside(model_dir, paths))
    names = [os.path.basename(path) if path in inside else path for path in paths]
    after = checkpoint_state_pb2.CheckpointState(model_checkpoint_path=names[-1], all_model_checkpoint_paths=names)
    before = _read_state(model_dir, name)
    if before is not None and before.all_model_checkpoint_paths == names and before.model_checkpoint_path == names[-1]:
        return
    path = os.path.join(model_dir, name)
    if "://" not in model_dir:
        write_whole(path, str(after))
        return
    with load_tensorflow().io.gfile.GFile(path, "w") as stream:
        stream.write(str(after))


def _read_state(model_dir: str, name: str) -> Any:
    """Returns the message in a state file: an empty one if the file is not readable, None if it is missing."""
    from google.protobuf import text_format
    from tensorflow.python.training import checkpoint_state_pb2

    files = load_tensorflow().io.gfile
    path = os.path.join(model_dir, name)
    if not files.exists(path) or files.isdir(path):
        return None
    with files.GFile(path, "rb") as stream:
        text = stream.read()
    try:
        return text_format.Merge(text.decode(), checkpoint_state_pb2.CheckpointState())
    except (text_format.ParseError, UnicodeDecodeError):
        return checkpoint_state_pb2.CheckpointState()


def _locate(model_dir: str, path: str) -> str:
    """Returns the prefix of a listed checkpoint: beside the state file, unless only the listed path exists."""
    beside = os.path.join(model_dir, os.path.basename(path))
    if _exists(beside) or glob.glob(f"{glob.escape(beside)}.*"):
        return beside
    elsewhere = os.path.join(model_dir, path)  # `join` leaves an absolute path unchanged
    return elsewhere if _exists(elsewhere) else beside


def _unlisted(model_dir: str, paths: list[str]) -> list[str]:
    """Returns the checkpoints of a folder that are older than the listed ones, the newest first."""
    if "://" in model_dir or not os.path.isdir(model_dir):
        return []
    others = [path for path in checkpoints(model_dir) if path not in paths]
    # An extended checkpoint is newer than the checkpoint of the same step from which it was made.
    others.sort(key=lambda path: (_number(path), os.path.basename(path).startswith(CHANGED)), reverse=True)
    newest = _number(paths[-1]) if paths else None
    if newest is None:
        return others
    stems = (f"{paths[-1].rpartition('-')[0]}-", os.path.join(model_dir, CHANGED))
    return [path for path in others if path.startswith(stems) and (_number(path) or 0) < newest]


def _number(path: str) -> int | None:
    """Returns the step in the name of a checkpoint, or None."""
    number = path.rpartition("-")[2]
    return int(number) if number.isdigit() else None


def _exists(path: str) -> bool:
    return bool(load_tensorflow().io.gfile.exists(f"{path}.index")) or _is_first_format(path)


def _is_first_format(path: str) -> bool:
    """True for a checkpoint in TensorFlow's first format, which has no index."""
    return os.path.isfile(path) or bool(glob.glob(f"{glob.escape(path)}-?????-of-?????"))


def _fault(path: str) -> str:
    if not load_tensorflow().io.gfile.exists(f"{path}.index") and _is_first_format(path):
        return ""
    return damage(path)


def _listing(damaged: Any) -> str:
    return ", ".join(f"{name} is damaged ({fault})" for name, fault in damaged)
