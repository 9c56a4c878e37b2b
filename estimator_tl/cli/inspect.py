"""``estimator-tl inspect``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estimator_tl.cli.command import Command, CommandFlags, refuse_arguments
from estimator_tl.config import ModelSpec
from estimator_tl.errors import UserError, shortened
from estimator_tl.specs import DATA_RULES
from estimator_tl.types import Variable


def define(command: CommandFlags) -> None:
    """Adds the flags of inspect."""
    command.string("Run", "model_dir", None, "Show this run instead of a backbone.")
    command.define(ModelSpec, without=("head", "optimizer"))
    command.boolean("Output", "variables", False, "List every variable.")


def run(command: CommandFlags, arguments: list[str]) -> int:
    """Shows a backbone with the plan of --tuning, or a run."""
    values = command.values
    refuse_arguments("inspect", arguments)
    if bool(values.model_dir) == bool(values.backbone):
        raise UserError("inspect needs one of --backbone and --model_dir.")
    from estimator_tl.launch.run import run_dir, session
    from estimator_tl.launch.run.auditing import has_checkpoint
    from estimator_tl.launch.run.plan_change import plan_of
    from estimator_tl.tuning.table import plan_table

    saved = None
    if values.model_dir:
        saved = run_dir.read(values.model_dir)
        print(_run_text(saved, values.model_dir))
        backbone = session.open_backbone(saved.spec.model, saved.spec.data.rules)
        saved = session.with_effective_settings(saved, backbone)
        model = saved.spec.model
    else:
        model = command.spec(ModelSpec)
        backbone = session.open_backbone(model, DATA_RULES)
    plan = plan_of(backbone.structure, model)
    print(_backbone_text(backbone))
    if values.variables:
        print(_variables_text(backbone.structure, plan))
    print(plan_table(plan))
    if saved and has_checkpoint(values.model_dir):
        _audit(saved, values.model_dir, backbone)
    return 0


def _audit(saved: Any, model_dir: str, backbone: Any) -> None:
    """Prints which variables changed in a run.

    Raises:
      UserError: a change contradicts the plan.
    """
    from estimator_tl.launch.run.auditing import audit_run
    from estimator_tl.tuning.audit import audit_table, contradictions

    findings, subject = audit_run(saved, model_dir, backbone)
    print(f"audit of {subject}")
    print(audit_table(findings))
    problems = contradictions(findings)
    for line in problems:
        print(f"contradiction: {line}")
    if problems:
        raise UserError(
            f"{len(problems)} variables contradict the plan ({problems[0]}); something outside the plan wrote to the "
            "run's checkpoints or its graph, or the run was trained with other settings."
        )
    print("the checkpoints agree with the plan")


def _run_text(saved: Any, model_dir: str) -> str:
    from estimator_tl.inputs import latest_step
    from estimator_tl.launch.run.auditing import damaged

    step = latest_step(model_dir)
    spec, record = saved.spec, saved.record
    lines = [
        f"run            {model_dir}, at step {step} of {record['total_steps']}",
        f"data           {spec.data.train_data}, {record['examples']} examples, {record['data_digest']}",
        f"classes        {len(saved.labels)}: {', '.join(saved.labels[:20])}{', ...' * (len(saved.labels) > 20)}",
        f"head           {spec.model.head}",
        f"optimizer      {spec.model.optimizer}, learning rate {spec.training.learning_rate or 'its own'}, "
        f"batch {spec.training.batch_size}",
        f"made with      estimator_tl {record['estimator_tl']}, "
        + ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        *(f"damaged        {name}: {fault}" for name, fault in damaged(model_dir)),
    ]
    if record.get("result", {}).get("metrics"):
        from estimator_tl.launch.hooks.progress import metrics_text

        lines.append(f"evaluation     {metrics_text(record['result']['metrics'])}")
    return "\n".join(lines)


def _backbone_text(backbone: Any) -> str:
    structure = backbone.structure
    sizes = [v.size for v in structure.variables]
    trainable = sum(v.size for v in structure.variables if v.trainable)
    layers = "none of its own" if structure.layers is None else str(len(structure.layers))
    lines = [
        f"backbone       {backbone.handle}",
        f"kind           {backbone.kind}",
        f"input          {_input_text(backbone.input_spec)}",
    ]
    if backbone.finding:
        lines.append(f"rescales       {_rescaling_text(backbone)}")
    lines.append(f"output         {backbone.output_shape}, pooling {backbone.pooling}")
    if backbone.outputs:
        lines.append(f"outputs        {_names(backbone.outputs)}")
    if backbone.draws:
        lines.append(f"random         {_names(backbone.draws)}: answers differ from call to call")
    if backbone.unsafe:
        lines.append(f"unsafe         {_names(backbone.unsafe)}")
    lines += [
        f"parameters     {sum(sizes):,} in {len(sizes)} variables; {trainable:,} can be trained",
        f"layers         {layers}; groups {len(structure.groups())}",
        f"digest         {backbone.digest()}",
    ]
    return "\n".join(lines)


def _names(names: Sequence[str]) -> str:
    return shortened(names, limit=40)


def _input_text(spec: Any) -> str:
    if spec.key == "text":
        return "text, UTF-8 strings"
    values = spec.range_text
    if spec.range is not None and values != _range_words(spec.range):
        values = f"{_range_words(spec.range)}, as {values} gives"
    return f"{spec.height}x{spec.width}x{spec.channels}, values {values}"


def _rescaling_text(backbone: Any) -> str:
    """Returns how a backbone rescales images before its first weights, and which range it takes."""
    finding, spec = backbone.finding, backbone.image_spec
    if not finding.text:
        default = "; [0, 1] is the default, see --input_range" if spec.range == (0, 1) else ""
        return f"nothing before its first weights{default}"
    if finding.range is None:
        return str(finding.text)
    if spec.range == finding.range:
        return f"{finding.text}, so it takes {_range_words(finding.range)}"
    return f"{finding.text}, as for values in {_range_words(finding.range)}, but it is given {spec.range_text}"


def _range_words(values: tuple[float, float]) -> str:
    return f"[{values[0]:g}, {values[1]:g}]"


def _variables_text(structure: Any, plan: Any) -> str:
    width = max(len(v.name) for v in structure.variables)
    lines = []
    for v in structure.variables:
        shape = "x".join(map(str, v.shape)) or "scalar"
        layer = f"  layer {v.layer}" if v.layer else ""
        lines.append(f"  {v.name.ljust(width)}  {_state(v, plan).ljust(10)}  {shape}{layer}")
    return "\n".join(lines)


def _state(variable: Variable, plan: Any) -> str:
    if variable.name in plan.trainable:
        return "train"
    return "statistics" if plan.may_change(variable) else "frozen"


COMMAND = Command(
    "show a backbone, what a tuning policy would train, or a run",
    "estimator-tl inspect --backbone=PATH --tuning='last_groups(4)'\n  estimator-tl inspect --model_dir=FOLDER",
    define,
    run,
)
