"""The VariablePlan: it alone decides which variables of a backbone move."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence

from estimator_tl.errors import UserError, check_known
from estimator_tl.spans import Interval, Span, join_intervals
from estimator_tl.structure import BATCH_NORM_MODES, CallMode, SourceStructure, SourceVariable
from estimator_tl.tuning.phases import Phased
from estimator_tl.tuning.policies import Policy


@dataclasses.dataclass(frozen=True)
class VariablePlan:
    """What happens to every variable of one backbone in one run.

    Attributes:
      structure: the structure of the backbone.
      policy: the tuning policy as text.
      trainable: names of the variables that the optimizer moves, in any phase.
      batch_norm: ``inference``; ``train``, for the unfrozen part; or ``recalibrate``: statistics are estimated again
        before the first step, and then stay.
      train_batch_norm: names of the batch-norm layers in training mode.
      dropout: whether dropout inside the backbone is on in training.
      training_switch: the ``training`` argument in training, for backbones with one switch.
      spans: the phases in order, or one span for a policy without phases.
      since: the global step at which this plan replaced another one; 0 for the first plan of a run.
      past: the steps before `since` in which a variable was trained under the earlier plans, by name. Its slots hold
        the history of these steps.
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
        """Returns this plan for a run that followed another plan before.

        Args:
          step: the first global step of this plan.
          earlier: the plan before, for the same backbone.
          keeps_slots: whether variables keep their slot variables, as they do with the same optimizer.
        """
        names = self.trainable & earlier.trainable if keeps_slots else ()
        history = Interval(0, step)
        past = {name: join_intervals(part.within(history) for part in earlier.active_steps(name)) for name in names}
        return dataclasses.replace(self, since=step, past=types.MappingProxyType(past))

    def call_mode(self, training: bool) -> CallMode:
        """Returns how the backbone is called in a graph for training, or for evaluation and prediction."""
        if not training:
            return CallMode()
        return CallMode(self.train_batch_norm, self.dropout, self.training_switch)

    def may_change(self, variable: SourceVariable) -> bool:
        """Returns whether training moves a variable, by gradients or as a batch-norm statistic."""
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
        return join_intervals([*self.past.get(name, ()), *parts])

    def parts(self, before: int, total: int) -> list[tuple[int, int]]:
        """Returns the spans that remain to be trained: (number, global step where it ends) for each.

        Args:
          before: the global step at which training begins.
          total: the global step at which training ends.
        """
        rest = Interval(before, total)
        return [(number, span.end_by(total)) for number, span in enumerate(self.spans) if span.overlaps(rest)]

    @property
    def frozen_whole(self) -> bool:
        """True if no variable of the backbone is trained."""
        return not self.trainable


def make_plan(
    structure: SourceStructure,
    policy: Policy,
    batch_norm: str = "inference",
    backbone_dropout: bool | None = None,
) -> VariablePlan:
    """Applies a tuning policy to a backbone.

    Args:
      structure: the structure of the backbone.
      policy: see `estimator_tl.tuning`.
      batch_norm: ``inference`` (statistics never move), ``train`` (unfrozen
        batch-norm layers use and update batch statistics) or ``recalibrate``
        (statistics are estimated on the target data before the first step).
      backbone_dropout: whether dropout of the backbone is on in training. By default it is on, except for a backbone
        that is frozen (in some phase), was saved with ``training=False`` around its dropout, or whose batch norm does
        not allow it.

    Raises:
      UserError: the policy selects nothing, or a partial policy selects everything; or the backbone does not allow
        the batch norm mode or the dropout.
    """
    check_known("batch_norm mode", batch_norm, BATCH_NORM_MODES)
    if not isinstance(policy, Policy):
        raise UserError(f"{policy} is a part of phases(...), not a tuning policy; write e.g. phases({policy}, full).")
    candidates = [v for v in structure.variables if v.trainable]
    if policy.expects_some and not candidates:
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
        _check_selection(structure, policy, trainable, candidates)
    trains_some = bool(trainable)
    trains_all = trains_some and len(trainable) == len(candidates)
    train_batch_norm: frozenset[str] = frozenset()
    switch = False
    dropout = backbone_dropout
    if dropout is None:
        dropout = trains_some and not structure.keeps_inference
    if structure.one_training_switch:
        switch, dropout = _one_switch(structure, trains_some, trains_all, batch_norm, backbone_dropout)
    elif batch_norm == "train":
        train_batch_norm = frozenset(v.batch_norm for v in candidates if v.batch_norm and v.name in trainable)
    return VariablePlan(structure, str(policy), trainable, batch_norm, train_batch_norm, dropout, switch, spans)


def _check_selection(
    structure: SourceStructure, policy: Policy, trainable: frozenset[str], candidates: Sequence[SourceVariable]
) -> None:
    if not trainable:
        raise UserError(f"{policy} selects nothing to train in {structure.handle}; {policy.hint(structure)}")
    if policy.partial and len(trainable) == len(candidates):
        raise UserError(
            f"{policy} selects every trainable variable of {structure.handle}; use --tuning=full, or select less."
        )


def _one_switch(
    structure: SourceStructure, trains_some: bool, trains_all: bool, batch_norm: str, backbone_dropout: bool | None
) -> tuple[bool, bool]:
    """Returns (training switch, dropout) for a backbone whose batch norm and dropout share one switch."""
    statistics = structure.has_statistics
    if structure.inference_only:
        _check_inference(structure, trains_some and batch_norm == "train" and statistics, bool(backbone_dropout))
        return False, False
    if batch_norm == "train" and statistics and trains_some and not trains_all:
        raise UserError(
            f"{structure.handle} has one training switch: batch norm in training mode would move the statistics of "
            "its frozen part too; use --batch_norm=inference, or --tuning=full."
        )
    moves_statistics = batch_norm == "train" and trains_all and statistics
    if backbone_dropout and statistics and not moves_statistics:
        raise UserError(
            f"{structure.handle} has one training switch: dropout cannot be on while its batch norm is in inference "
            "mode; leave --backbone_dropout out, or use --tuning=full --batch_norm=train."
        )
    if statistics:
        return moves_statistics, moves_statistics
    dropout = trains_some if backbone_dropout is None else backbone_dropout
    return dropout, dropout


def _check_inference(structure: SourceStructure, batch_norm: bool, dropout: bool) -> None:
    """Refuses batch norm in training mode, and dropout, for a backbone that can only be called for inference."""
    effect = remedy = ""
    if batch_norm:
        effect, remedy = "batch norm cannot move its statistics", "use --batch_norm=inference"
    elif dropout:
        effect, remedy = "its dropout cannot be on", "leave --backbone_dropout out"
    if effect:
        raise UserError(f"{structure.handle} {structure.inference_only}: {effect}; {remedy}.")
