"""Which variable of a checkpoint each variable of a network begins with."""

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
_LEFT_OUT = "or leave such variables as they are initialized with exclude='regex'"
_MOST = 3


@dataclasses.dataclass(frozen=True)
class Naming:
    """How the names of a network become those of a checkpoint.

    Attributes:
      scope: the checkpoint has the network's names below this one.
      rename: the checkpoint's name, in whole, for a name or the beginning of names in the network.
      exclude: what matches the names of variables that keep their initializers.
      skip_mismatched: whether variables of another shape keep their initializers too.
      ema: whether the moving average of a variable is used where the checkpoint has one.
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
          UserError: an argument has a type of no use.
        """
        if not isinstance(scope or "", str):
            raise UserError(f"scope={scope!r} is not a name; write e.g. scope='resnet_v1_50'.")
        rename = dict(rename) if isinstance(rename, Mapping) else rename
        if rename and not (isinstance(rename, dict) and all(isinstance(n, str) for n in (*rename, *rename.values()))):
            raise UserError(f"rename={rename!r} is not a map of names; write e.g. rename={{'conv1': 'stem/conv'}}.")
        patterns = [exclude] if isinstance(exclude, str) else list(exclude or ())
        try:
            compiled = tuple(re.compile(pattern) for pattern in patterns)
        except (re.error, TypeError) as error:
            raise UserError(f"exclude={exclude!r} is not a regex ({error}); write e.g. exclude='^logits/'.") from error
        short = {name.strip("/"): value.strip("/") for name, value in (rename or {}).items()}
        return cls((scope or "").strip("/"), short, compiled, skip_mismatched, ema)

    def in_checkpoint(self, name: str) -> str:
        """Returns the name that a variable of the network has in the checkpoint."""
        for own in sorted(self.rename, key=len, reverse=True):
            if not own or name == own or name.startswith(f"{own}/"):
                return f"{self.rename[own]}/{name[len(own) :].strip('/')}".strip("/")
        return f"{self.scope}/{name}".strip("/")

    def excludes(self, name: str) -> bool:
        """True for variables that keep their initializers."""
        return any(pattern.search(name) for pattern in self.exclude)

    def keys(self, variables: Sequence[SourceVariable], files: CheckpointFiles, network: str) -> dict[str, str]:
        """Returns the checkpoint's key for each variable of a network that begins with a value of it.

        Raises:
          UserError: the checkpoint lacks a variable or has another shape, or an argument fits nothing.
        """
        self._check_all_used([variable.name for variable in variables])
        found: dict[str, str] = {}
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
                found[variable.name] = shadow or key or ""
        if missing:
            raise UserError(_missing_text(missing, files, network))
        if not found:
            raise UserError(f"nothing of network {network} begins with a value of {files.path}; exclude less.")
        return found

    def _check_all_used(self, names: Sequence[str]) -> None:
        for own in self.rename:
            if own and not any(name == own or name.startswith(f"{own}/") for name in names):
                raise UserError(f"rename: no variable of the network begins with {own!r}; {nearest(own, names)}")
        for pattern in self.exclude:
            if not any(pattern.search(name) for name in names):
                raise UserError(
                    f"exclude: no variable of the network matches {pattern.pattern!r}; "
                    f"{nearest(pattern.pattern, names)}"
                )

    def _fits(self, variable: SourceVariable, key: str, files: CheckpointFiles, network: str) -> bool:
        shape, own = files.shapes[key], tf.as_dtype(variable.dtype)
        numbers = files.types[key] == own or (files.types[key].is_floating and own.is_floating)
        if shape == variable.shape and numbers:
            return True
        differ = (
            f"{variable.name} has shape {variable.shape} and type {variable.dtype} in network {network}, but {key} has "
            f"shape {shape} and type {files.types[key].name} in {files.path}"
        )
        if not self.skip_mismatched:
            raise UserError(
                f"{differ}; correct the network, {_LEFT_OUT}, or all of another shape with skip_mismatched=True."
            )
        logging.warning("skipped: %s; it keeps its initializer.", differ)
        return False


def _missing_text(missing: Sequence[tuple[str, str]], files: CheckpointFiles, network: str) -> str:
    parts = []
    for name, target in missing[:_MOST]:
        sought = name if name == target else f"{name} (sought as {target})"
        parts.append(f"{sought}, nearest there: {', '.join(_near(target, files.keys)) or 'none'}")
    more = f"; and {len(missing) - _MOST} more" if len(missing) > _MOST else ""
    return (
        f"{files.path} lacks {len(missing)} variables of network {network}: {'; '.join(parts)}{more}; "
        f"{_remedy(missing, files)}, {_LEFT_OUT}."
    )


def _near(name: str, known: Iterable[str]) -> list[str]:
    ending = [other for other in known if other.endswith(f"/{name}") or name.endswith(f"/{other}")]
    return ending[:_MOST] or difflib.get_close_matches(name, list(known), n=_MOST, cutoff=0.4)


def _remedy(missing: Sequence[tuple[str, str]], files: CheckpointFiles) -> str:
    """Says how to name what is missing: by one scope, where that finds all of it."""
    targets = [target for _, target in missing]
    for other in _near(targets[0], files.keys):
        more, less = other.removesuffix(f"/{targets[0]}"), targets[0].removesuffix(f"/{other}")
        if more != other and all(f"{more}/{target}" in files.keys for target in targets):
            return f"give scope={more!r}"
        if less != targets[0] and all(target.removeprefix(f"{less}/") in files.keys for target in targets):
            return f"give rename={{{less!r}: ''}}"
    return "name them with scope= or rename={'NETWORK': 'CHECKPOINT'}"
