"""``estimator-tl inspect``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from estimator_tl.cli.command import Command, CommandFlags, refuse_arguments
from estimator_tl.config import ModelSpec
from estimator_tl.errors import UserError, shortened
from estimator_tl.specs import DATA_RULES


def define(command: CommandFlags) -> None:
    """Adds the flags of inspect."""
    command.string("Run", "model_dir", None, "show this run instead of a backbone.")
    command.define(ModelSpec, without=("head", "optimizer"))
    command.boolean("Output", "variables", False, "list every variable.")


def run(command: CommandFlags, arguments: list[str]) -> int:
    """Shows a backbone and the plan of --tuning for it, or a run."""
    values = command.values
    refuse_arguments("inspect", arguments)
    if bool(values.model_dir) == bool(values.backbone):
        raise UserError("inspect needs one of --backbone and --model_dir.")
    from estimator_tl.launch.run import run_dir, session
    from estimator_tl.launch.run.auditing import has_checkpoint
    from estimator_tl.launch.run.plan_change import plan_of
    from estimator_tl.tuning.table import plan_table

    saved = run_dir.read(values.model_dir) if values.model_dir else None
    model = saved.spec.model if saved else command.spec(ModelSpec)
    if saved:
        print(_run_text(saved, values.model_dir))
    source = session.open_backbone(model, saved.spec.data.rules if saved else DATA_RULES)
    if saved:
        saved = session.as_trained(saved, source)
        model = saved.spec.model
    plan = plan_of(source.structure, model)
    print(_source_text(source))
    if values.variables:
        print(_variables_text(source.structure, plan))
    print(plan_table(plan))
    if saved and has_checkpoint(values.model_dir):
        _audit(saved, values.model_dir, source)
    return 0


def _audit(saved: Any, model_dir: str, source: Any) -> None:
    """Prints what moved in a run.

    Raises:
      UserError: it contradicts the plan.
    """
    from estimator_tl.launch.run.auditing import audit_run
    from estimator_tl.tuning.audit import audit_table, contradictions

    findings, what = audit_run(saved, model_dir, source)
    print(f"audit of {what}")
    print(audit_table(findings))
    against = contradictions(findings)
    for line in against:
        print(f"contradiction: {line}")
    if against:
        raise UserError(
            f"{len(against)} variables contradict the plan ({against[0]}); something outside the plan wrote to the "
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


def _source_text(source: Any) -> str:
    spec, structure = source.input_spec, source.structure
    sizes = [v.size for v in structure.variables]
    trainable = sum(v.size for v in structure.variables if v.trainable)
    layers = "none of its own" if structure.layers is None else str(len(structure.layers))
    return "\n".join(
        [
            f"backbone       {source.handle}",
            f"kind           {source.kind}",
            f"input          {_input_text(spec)}",
            *([f"rescales       {_rescaling_text(source)}"] if source.finding else []),
            f"output         {source.output_shape}, pooling {source.pooling}",
            *([f"outputs        {_names(source.outputs)}"] if source.outputs else []),
            *([f"random         {_names(source.draws)}: answers differ from call to call"] if source.draws else []),
            *([f"unsafe         {_names(source.unsafe)}"] if source.unsafe else []),
            f"parameters     {sum(sizes):,} in {len(sizes)} variables; {trainable:,} can be trained",
            f"layers         {layers}; groups {len(structure.groups())}",
            f"digest         {source.digest()}",
        ]
    )


def _names(names: Sequence[str]) -> str:
    return shortened(names, limit=40)


def _input_text(spec: Any) -> str:
    if spec.key == "text":
        return "text, UTF-8 strings"
    values = spec.range_text
    if spec.range is not None and values != _range_words(spec.range):
        values = f"{_range_words(spec.range)}, as {values} gives"
    return f"{spec.height}x{spec.width}x{spec.channels}, values {values}"


def _rescaling_text(source: Any) -> str:
    """Returns what a source does to images before its first weights, and what follows from that."""
    finding, spec = source.finding, source.image_spec
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
        state = "train" if v.name in plan.trainable else "statistics" if plan.may_change(v) else "frozen"
        layer = f"  layer {v.layer}" if v.layer else ""
        lines.append(f"  {v.name.ljust(width)}  {state.ljust(10)}  {'x'.join(map(str, v.shape)) or 'scalar'}{layer}")
    return "\n".join(lines)


COMMAND = Command(
    "show a backbone, what a tuning policy would train, or a run",
    "estimator-tl inspect --backbone=PATH --tuning='last_groups(4)'\n  estimator-tl inspect --model_dir=FOLDER",
    define,
    run,
)
