"""The newest checkpoint of a folder: the one place that reads and writes the state file ``checkpoint``.

TensorFlow's own `latest_checkpoint` looks for the files by a pattern, so that it finds nothing in a folder named
``exp[lr=0.1]``; it does not look whether they are whole; and it believes absolute paths of before a folder was moved.
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
CHANGED = "changed.ckpt"  # the name of checkpoints that got further variables
_INPUT_STATES = f"{STATE}_input*"  # of TensorFlow's CheckpointInputPipelineHook, with files named input.ckpt-STEP
_PREFIX = re.compile(r"((?!input[._]).*\.ckpt-(\d+))\.index")


@dataclasses.dataclass(frozen=True)
class Newest:
    """The newest whole checkpoint of a folder.

    Attributes:
      path: its prefix.
      damaged: what is newer and not whole: file name and what is wrong with it, newest first.
    """

    path: str
    damaged: tuple[tuple[str, str], ...] = ()

    @property
    def step(self) -> int:
        """Its global step."""
        return step_of(self.path)

    def tell(self) -> None:
        """Says on standard error what is passed over, in one line, if there is something."""
        if self.damaged:
            folder, name = os.path.split(self.path)
            print(f"{_listing(self.damaged)} in {folder}; taking {name}", file=sys.stderr)


def newest_checkpoint(model_dir: str | None) -> Newest | None:
    """Returns the newest whole checkpoint that the state file of a folder lists; None where there is no state file.

    Files whose names the state file lists are taken from beside it, wherever its paths lead, as a folder may have been
    moved or copied. Where the newest is damaged, an older one is taken, also one that the list no longer has.

    Raises:
      UserError: checkpoints are listed, and none is whole; or TensorFlow cannot read from a folder of this name.
    """
    paths = listed_checkpoints(model_dir) if model_dir else None
    if not model_dir or paths is None:
        return None
    check_literal(model_dir, "model_dir")
    damaged = [] if paths else [(STATE, "it is not readable")]
    for path in [*reversed(paths), *_unlisted(model_dir, paths)]:
        fault = _fault(path)
        if not fault:
            return Newest(path, tuple(damaged))
        if listed_checkpoints(model_dir) != paths:  # a training goes on, and has removed what was listed
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
    """Returns the prefixes in a state file, the newest last; empty where it is not readable, None where it is missing.

    They are not looked at.
    """
    state = _read_state(model_dir, name)
    if state is None:
        return None
    newest = state.model_checkpoint_path
    paths = [*(path for path in state.all_model_checkpoint_paths if path != newest), newest]
    return [_place(model_dir, path) for path in paths if path]


def checkpoints(model_dir: str) -> list[str]:
    """Returns the prefixes of all checkpoints in a folder that have an index, oldest first, also those no list has."""
    names = (_PREFIX.fullmatch(name) for name in os.listdir(model_dir))
    numbered = sorted((int(match[2]), match[1]) for match in names if match)
    return [os.path.join(model_dir, name) for _, name in numbered]


def correct_state(model_dir: str) -> Newest | None:
    """Makes the state file of a folder list its newest whole checkpoint, by relative paths, as sessions restore by it.

    The state files of inputs then list what was saved with it.

    Returns:
      The newest whole checkpoint.

    Raises:
      UserError: as `newest_checkpoint` does.
    """
    newest = newest_checkpoint(model_dir)
    if newest is None:
        return None
    listed = [path for path in listed_checkpoints(model_dir) or () if path != newest.path and not _fault(path)]
    write_state(model_dir, [*_own(model_dir, listed), newest.path])
    if "://" not in model_dir:
        for state in glob.glob(os.path.join(glob.escape(model_dir), _INPUT_STATES)):
            _correct_input_state(model_dir, os.path.basename(state), newest)
    return newest


def _correct_input_state(model_dir: str, name: str, newest: Newest) -> None:
    paths = _own(model_dir, [path for path in listed_checkpoints(model_dir, name) or () if not _fault(path)])
    if newest.damaged:
        paths = [path for path in paths if (_number(path) or 0) <= newest.step]
    if paths:
        write_state(model_dir, paths, name)


def _own(model_dir: str, paths: list[str]) -> list[str]:
    """Returns the paths in a folder; a saver removes what is listed, and other folders' files are not a run's own."""
    return [path for path in paths if os.path.dirname(os.path.normpath(path)) == os.path.normpath(model_dir)]


def write_state(model_dir: str, paths: list[str], name: str = STATE) -> None:
    """Writes a state file, if it does not say the same already.

    Args:
      model_dir: the folder.
      paths: prefixes, the newest last; those in the folder are written by their names.
      name: of the file.
    """
    from tensorflow.python.training import checkpoint_state_pb2

    own = set(_own(model_dir, paths))
    names = [os.path.basename(path) if path in own else path for path in paths]
    after = checkpoint_state_pb2.CheckpointState(model_checkpoint_path=names[-1], all_model_checkpoint_paths=names)
    before = _read_state(model_dir, name)
    if before is not None and before.all_model_checkpoint_paths == names and before.model_checkpoint_path == names[-1]:
        return
    place = os.path.join(model_dir, name)
    if "://" not in model_dir:
        write_whole(place, str(after))
        return
    with load_tensorflow().io.gfile.GFile(place, "w") as stream:
        stream.write(str(after))


def _read_state(model_dir: str, name: str) -> Any:
    """Returns a state file's message, an empty one where it is not readable; None where it is missing."""
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


def _place(model_dir: str, path: str) -> str:
    """Returns where a checkpoint of a state file is: beside it, unless nothing of that name lies there."""
    beside = os.path.join(model_dir, os.path.basename(path))
    if _exists(beside) or glob.glob(f"{glob.escape(beside)}.*"):
        return beside
    elsewhere = os.path.join(model_dir, path)  # an absolute path as it is
    return elsewhere if _exists(elsewhere) else beside


def _unlisted(model_dir: str, paths: list[str]) -> list[str]:
    """Returns the checkpoints of a folder that are older than the listed ones, the newest first."""
    if "://" in model_dir or not os.path.isdir(model_dir):
        return []
    others = [path for path in checkpoints(model_dir) if path not in paths]
    # A checkpoint that got further variables is newer than the one of the same step that it was made from.
    others.sort(key=lambda path: (_number(path), os.path.basename(path).startswith(CHANGED)), reverse=True)
    newest = _number(paths[-1]) if paths else None
    if newest is None:
        return others
    stems = (f"{paths[-1].rpartition('-')[0]}-", os.path.join(model_dir, CHANGED))
    return [path for path in others if path.startswith(stems) and (_number(path) or 0) < newest]


def _number(path: str) -> int | None:
    """Returns the step in a checkpoint's name."""
    number = path.rpartition("-")[2]
    return int(number) if number.isdigit() else None


def _exists(path: str) -> bool:
    return bool(load_tensorflow().io.gfile.exists(f"{path}.index")) or _is_first_format(path)


def _is_first_format(path: str) -> bool:
    """True for a checkpoint as TensorFlow wrote them before it had an index."""
    return os.path.isfile(path) or bool(glob.glob(f"{glob.escape(path)}-?????-of-?????"))


def _fault(path: str) -> str:
    if not load_tensorflow().io.gfile.exists(f"{path}.index") and _is_first_format(path):
        return ""
    return damage(path)


def _listing(damaged: Any) -> str:
    return ", ".join(f"{name} is damaged ({fault})" for name, fault in damaged)
