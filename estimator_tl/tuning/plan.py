"""The VariablePlan: the single truth about which variables of a source move."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence

from estimator_tl.errors import UserError, check_known
from estimator_tl.spans import Interval, Span, joined
from estimator_tl.structure import BATCH_NORM_MODES, CallMode, SourceStructure, SourceVariable
from estimator_tl.tuning.phases import Phased
from estimator_tl.tuning.policies import Policy


@dataclasses.dataclass(frozen=True)
class VariablePlan:
    """What happens to every variable of one source in one run.

    Attributes:
      structure: the source.
      policy: the tuning policy as text.
      trainable: names of the variables that the optimizer moves, in any phase.
      batch_norm: ``inference``; ``train``, for the unfrozen part; or ``recalibrate``: statistics are estimated anew
        before the first step and stay.
      train_batch_norm: names of the batch-norm layers in training mode.
      dropout: whether dropout inside the source drops while training.
      training_switch: the ``training`` argument while training, for sources with one switch.
      spans: what is trained when, in order: the phases, or one span for a policy without them.
      since: the global step from which the plan holds, where another one held before it.
      past: in which steps before `since` a variable was trained, and so what its slots hold.
    """

    structure: SourceStructure
    policy: str
    trainable: frozenset[str]
    batch_norm: str
    train_batch_norm: frozenset[str]
    dropout: bool
    training_switch: bool
    spans: tuple[Span, ...]
    since: int = 0
    past: Mapping[str, Sequence[Interval]] = dataclasses.field(default_factory=lambda: types.MappingProxyType({}))

    def after(self, step: int, earlier: VariablePlan, keeps_slots: bool) -> VariablePlan:
        """Returns this plan for a run that followed another one until a step.

        Args:
          step: the first global step of this plan.
          earlier: the plan before it, for the same source.
          keeps_slots: whether variables go on with their slots, as they do under the same optimizer.
        """
        names = self.trainable & earlier.trainable if keeps_slots else ()
        history = Interval(0, step)
        past = {name: joined(part.within(history) for part in earlier.active_steps(name)) for name in names}
        return dataclasses.replace(self, since=step, past=types.MappingProxyType(past))

    def call_mode(self, training: bool) -> CallMode:
        """Returns how the source is called in a graph for training, or for anything else."""
        if not training:
            return CallMode()
        return CallMode(self.train_batch_norm, self.dropout, self.training_switch)

    def may_change(self, variable: SourceVariable) -> bool:
        """True for variables that training moves, by gradients or as batch-norm statistics."""
        if variable.name in self.trainable:
            return True
        if self.structure.one_training_switch:
            return self.training_switch and not variable.trainable and variable.statistic is not False
        return variable.batch_norm in self.train_batch_norm and not variable.trainable

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names of the variables that must stay bit-identical."""
        return tuple(v.name for v in self.structure.variables if not self.may_change(v))

    def active_steps(self, name: str) -> list[Interval]:
        """Returns the intervals of global steps in which a trainable variable is trained."""
        lifetime = Interval(self.since)
        parts = [span.within(lifetime) for span in self.spans if name in span.trainable]
        return joined([*self.past.get(name, ()), *parts])

    def parts(self, before: int, total: int) -> list[tuple[int, int]]:
        """Returns what is left to train: the numbers of spans, and the global step where each ends.

        Args:
          before: the global step at which training begins.
          total: the global step at which it ends.
        """
        rest = Interval(before, total)
        return [(number, span.end_by(total)) for number, span in enumerate(self.spans) if span.overlaps(rest)]

    @property
    def frozen_whole(self) -> bool:
        """True where no variable of the source is trained."""
        return not self.trainable


def make_plan(
    structure: SourceStructure,
    policy: Policy,
    batch_norm: str = "inference",
    backbone_dropout: bool | None = None,
) -> VariablePlan:
    """Applies a tuning policy to a source.

    Args:
      structure: the source.
      policy: see `estimator_tl.tuning`.
      batch_norm: ``inference`` (statistics never move), ``train`` (unfrozen
        batch-norm layers use and update batch statistics) or ``recalibrate``
        (statistics are estimated on the target data before the first step).
      backbone_dropout: None means: on for an unfrozen source as far as its
        batch norm allows, off for a frozen one, one that is frozen in some phase,
        and one that was saved with ``training=False`` around its dropout.

    Raises:
      UserError: the policy selects nothing or everything where it should be
        partial, or the source cannot do what is asked.
    """
    check_known("batch_norm mode", batch_norm, BATCH_NORM_MODES)
    if not isinstance(policy, Policy):
        raise UserError(f"{policy} is a part of phases(...), not a tuning policy; write e.g. phases({policy}, full).")
    movable = [v for v in structure.variables if v.trainable]
    if policy.expects_some and not movable:
        raise UserError(f"{structure.handle} has no trainable variables; use --tuning=frozen.")
    if batch_norm == "recalibrate" and not structure.has_statistics:
        raise UserError(f"{structure.handle} has no batch-norm statistics to recalibrate; use batch norm inference.")
    spans = policy.spans(structure)
    if isinstance(policy, Phased) and batch_norm == "train":
        raise UserError(
            f"{policy}: batch norm in training mode would move the statistics of parts that are not unfrozen yet; "
            "use batch norm inference with phases."
        )
    if backbone_dropout is None and not all(span.trainable for span in spans):
        backbone_dropout = False  # one graph serves all phases, the frozen ones too
    trainable = frozenset(policy.select(structure))
    if policy.expects_some:
        _check_selection(structure, policy, trainable, movable)
    trains = bool(trainable)
    whole = trains and len(trainable) == len(movable)
    train_batch_norm: frozenset[str] = frozenset()
    switch = False
    dropout = trains and not structure.keeps_inference if backbone_dropout is None else backbone_dropout
    if structure.one_training_switch:
        switch, dropout = _one_switch(structure, trains, whole, batch_norm, backbone_dropout)
    elif batch_norm == "train":
        train_batch_norm = frozenset(v.batch_norm for v in movable if v.batch_norm and v.name in trainable)
    return VariablePlan(structure, str(policy), trainable, batch_norm, train_batch_norm, dropout, switch, spans)


def _check_selection(
    structure: SourceStructure, policy: Policy, trainable: frozenset[str], movable: Sequence[SourceVariable]
) -> None:
    if not trainable:
        raise UserError(f"{policy} selects nothing to train in {structure.handle}; {policy.hint(structure)}")
    if policy.partial and len(trainable) == len(movable):
        raise UserError(
            f"{policy} selects every trainable variable of {structure.handle}; use --tuning=full, or select less."
        )


def _one_switch(
    structure: SourceStructure, trains: bool, whole: bool, batch_norm: str, backbone_dropout: bool | None
) -> tuple[bool, bool]:
    """Returns (training switch, dropout) for a source whose batch norm and dropout share one switch."""
    statistics = structure.has_statistics
    if structure.inference_only:
        _check_inference(structure, trains and batch_norm == "train" and statistics, bool(backbone_dropout))
        return False, False
    if batch_norm == "train" and statistics and trains and not whole:
        raise UserError(
            f"{structure.handle} has one training switch: batch norm in training mode would move the statistics of "
            "its frozen part too; use --batch_norm=inference, or --tuning=full."
        )
    moves_statistics = batch_norm == "train" and whole and statistics
    if backbone_dropout and statistics and not moves_statistics:
        raise UserError(
            f"{structure.handle} has one training switch: dropout cannot be on while its batch norm is in inference "
            "mode; leave --backbone_dropout out, or use --tuning=full --batch_norm=train."
        )
    switch = moves_statistics or (not statistics and (trains if backbone_dropout is None else backbone_dropout))
    return switch, switch


def _check_inference(structure: SourceStructure, batch_norm: bool, dropout: bool) -> None:
    """Refuses batch norm in training mode, or dropout, for a source that was saved for inference alone."""
    for asked, what, remedy in (
        (batch_norm, "batch norm cannot move its statistics", "use --batch_norm=inference"),
        (dropout, "its dropout cannot be on", "leave --backbone_dropout out"),
    ):
        if asked:
            raise UserError(f"{structure.handle} {structure.inference_only}: {what}; {remedy}.")
