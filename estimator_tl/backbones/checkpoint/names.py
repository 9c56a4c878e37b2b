"""Decides which variable of a checkpoint gives each variable of a network its initial value."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from estimator_tl.backbones.checkpoint.files import CheckpointFiles
from estimator_tl.compat import tf
from estimator_tl.errors import UserError, nearest
from estimator_tl.structure import SourceVariable

_SHADOW = "/ExponentialMovingAverage"
_EXCLUDE_REMEDY = "or leave such variables as they are initialized with exclude='regex'"
_MAX_NAMES = 3


@dataclasses.dataclass(frozen=True)
class Naming:
    """How the names of a network map to the names of a checkpoint.

    Attributes:
      scope: a prefix that names have in the checkpoint and not in the network.
      rename: the full name in the checkpoint, for a name or a name prefix in the network.
      exclude: patterns of the names of variables that keep their initializers.
      skip_mismatched: whether variables whose shape differs keep their initializers too.
      ema: whether to use the moving average of a variable where the checkpoint has it.
    """

    scope: str = ""
    rename: Mapping[str, str] = dataclasses.field(default_factory=dict)
    exclude: tuple[re.Pattern[str], ...] = ()
    skip_mismatched: bool = False
    ema: bool = True

    @classmethod
    def of(cls, scope: Any, rename: Any, exclude: Any, skip_mismatched: bool, ema: bool) -> Naming:
        """Returns the naming that a user wrote.

        Raises:
          UserError: an argument has the wrong type.
        """
        if not isinstance(scope or "", str):
            raise UserError(f"scope={scope!r} is not a name; write e.g. scope='resnet_v1_50'.")
        if isinstance(rename, Mapping):
            rename = dict(rename)
        if rename and not (isinstance(rename, dict) and all(isinstance(n, str) for n in (*rename, *rename.values()))):
            raise UserError(f"rename={rename!r} is not a map of names; write e.g. rename={{'conv1': 'stem/conv'}}.")
        regexes = [exclude] if isinstance(exclude, str) else list(exclude or ())
        try:
            patterns = tuple(re.compile(regex) for regex in regexes)
        except (re.error, TypeError) as error:
            raise UserError(f"exclude={exclude!r} is not a regex ({error}); write e.g. exclude='^logits/'.") from error
        renames = {name.strip("/"): value.strip("/") for name, value in (rename or {}).items()}
        return cls((scope or "").strip("/"), renames, patterns, skip_mismatched, ema)

    def in_checkpoint(self, name: str) -> str:
        """Returns the name that a variable of the network has in the checkpoint."""
        for prefix in sorted(self.rename, key=len, reverse=True):
            if not prefix or name == prefix or name.startswith(f"{prefix}/"):
                return f"{self.rename[prefix]}/{name[len(prefix) :].strip('/')}".strip("/")
        return f"{self.scope}/{name}".strip("/")

    def excludes(self, name: str) -> bool:
        """Returns whether a variable keeps its initializer."""
        return any(pattern.search(name) for pattern in self.exclude)

    def keys(self, variables: Sequence[SourceVariable], files: CheckpointFiles, network: str) -> dict[str, str]:
        """Returns the checkpoint's key for each variable of a network that gets its value from the checkpoint.

        Raises:
          UserError: the checkpoint lacks a variable or has another shape, or an argument matches nothing.
        """
        self._check_matches([variable.name for variable in variables])
        keys: dict[str, str] = {}
        missing = []
        for variable in variables:
            if self.excludes(variable.name):
                continue
            target = self.in_checkpoint(variable.name)
            key = files.keys.get(target)
            shadow = files.keys.get(f"{target}{_SHADOW}") if self.ema else None
            if key is None and shadow is None:
                missing.append((variable.name, target))
            elif self._fits(variable, shadow or key or "", files, network):
                keys[variable.name] = shadow or key or ""
        if missing:
            raise UserError(_missing_text(missing, files, network))
        if not keys:
            raise UserError(
                f"no variable of network {network} gets its value from {files.path}; exclude fewer variables."
            )
        return keys

    def _check_matches(self, names: Sequence[str]) -> None:
        """Checks that each prefix of `rename` and each pattern of `exclude` matches a variable."""
        for prefix in self.rename:
            if prefix and not any(name == prefix or name.startswith(f"{prefix}/") for name in names):
                raise UserError(f"rename: no variable of the network begins with {prefix!r}; {nearest(prefix, names)}")
        for pattern in self.exclude:
            if not any(pattern.search(name) for name in names):
                raise UserError(
                    f"exclude: no variable of the network matches {pattern.pattern!r}; "
                    f"{nearest(pattern.pattern, names)}"
                )

    def _fits(self, variable: SourceVariable, key: str, files: CheckpointFiles, network: str) -> bool:
        shape, dtype = files.shapes[key], tf.as_dtype(variable.dtype)
        has_same_type = files.types[key] == dtype or (files.types[key].is_floating and dtype.is_floating)
        if shape == variable.shape and has_same_type:
            return True
        difference = (
            f"{variable.name} has shape {variable.shape} and type {variable.dtype} in network {network}, but {key} has "
            f"shape {shape} and type {files.types[key].name} in {files.path}"
        )
        if not self.skip_mismatched:
            raise UserError(
                f"{difference}; correct the network, {_EXCLUDE_REMEDY}, or all of another shape with "
                "skip_mismatched=True."
            )
        logging.warning("skipped: %s; it keeps its initializer.", difference)
        return False


def _missing_text(missing: Sequence[tuple[str, str]], files: CheckpointFiles, network: str) -> str:
    parts = []
    for name, target in missing[:_MAX_NAMES]:
        label = name if name == target else f"{name} (expected as {target})"
        parts.append(f"{label}, most similar: {', '.join(_similar_names(target, files.keys)) or 'none'}")
    more = f"; and {len(missing) - _MAX_NAMES} more" if len(missing) > _MAX_NAMES else ""
    return (
        f"{files.path} lacks {len(missing)} variables of network {network}: {'; '.join(parts)}{more}; "
        f"{_remedy(missing, files)}, {_EXCLUDE_REMEDY}."
    )


def _similar_names(name: str, candidates: Iterable[str]) -> list[str]:
    same_end = [other for other in candidates if other.endswith(f"/{name}") or name.endswith(f"/{other}")]
    return same_end[:_MAX_NAMES] or difflib.get_close_matches(name, list(candidates), n=_MAX_NAMES, cutoff=0.4)


def _remedy(missing: Sequence[tuple[str, str]], files: CheckpointFiles) -> str:
    """Returns advice on how to name the missing variables: with one scope or prefix, if that finds all of them."""
    targets = [target for _, target in missing]
    for other in _similar_names(targets[0], files.keys):
        scope, prefix = other.removesuffix(f"/{targets[0]}"), targets[0].removesuffix(f"/{other}")
        if scope != other and all(f"{scope}/{target}" in files.keys for target in targets):
            return f"give scope={scope!r}"
        if prefix != targets[0] and all(target.removeprefix(f"{prefix}/") in files.keys for target in targets):
            return f"give rename={{{prefix!r}: ''}}"
    return "name them with scope= or rename={'NETWORK': 'CHECKPOINT'}"
