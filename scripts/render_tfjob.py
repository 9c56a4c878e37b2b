#!/usr/bin/env python3
"""Prints the manifest of a Kubeflow TFJob that trains on a cluster; scripts/tfjob.yaml explains such a manifest.

scripts/render_tfjob.py --name=flowers --image=REGISTRY/estimator_tl --workers=2 --ps=1 --evaluator=1 \\
    --volume_claim=runs --model_dir=/runs/flowers -- --flagfile=/runs/train.flags | kubectl apply -f -
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, NoReturn

# The names and the port that the operator expects.
CONTAINER, PORT_NAME, PORT = "tensorflow", "tfjob-port", 2222
_LONGEST_SUFFIX = "-evaluator-0"
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9./_-]*")
_YAML_WORDS = ("true", "false", "yes", "no", "on", "off", "y", "n", "null")


def manifest(options: argparse.Namespace, train_flags: Sequence[str]) -> dict[str, Any]:
    """Returns the TFJob as dicts, lists and scalars."""
    counts = {"Chief": 1, "Worker": options.workers, "PS": options.ps, "Evaluator": options.evaluator}
    # With "Running", the operator ends all running pods as soon as the chief is done, but an evaluator still has to
    # evaluate the last checkpoint. Parameter servers of `train` exit without help.
    clean = "None" if options.evaluator else "Running"
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "TFJob",
        "metadata": {"name": options.name, **({"namespace": options.namespace} if options.namespace else {})},
        "spec": {
            "runPolicy": {"cleanPodPolicy": clean, "ttlSecondsAfterFinished": options.ttl_secs},
            "tfReplicaSpecs": {
                job: {
                    "replicas": count,
                    "restartPolicy": "ExitCode",
                    "template": {"spec": _pod(options, job, train_flags)},
                }
                for job, count in counts.items()
                if count
            },
        },
    }


def _pod(options: argparse.Namespace, job: str, train_flags: Sequence[str]) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if options.cpu:
        limits["cpu"] = options.cpu
    if options.memory:
        limits["memory"] = options.memory
    if options.gpus and job in ("Chief", "Worker"):
        limits["nvidia.com/gpu"] = options.gpus
    return {
        "terminationGracePeriodSeconds": options.grace_secs,
        "containers": [
            {
                "name": CONTAINER,
                "image": options.image,
                "command": ["estimator-tl", "train", f"--model_dir={options.model_dir}", *train_flags],
                "ports": [{"name": PORT_NAME, "containerPort": PORT}],
                **({"resources": {"limits": limits}} if limits else {}),
                "volumeMounts": [{"name": "runs", "mountPath": options.mount_path}],
            }
        ],
        "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": options.volume_claim}}],
    }


def to_yaml(value: Any) -> Iterator[str]:
    """Yields the lines of a value as YAML; strings that YAML could misread are quoted as in JSON, a subset of YAML."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, (dict, list)):
                yield f"{key}:"
                yield from (f"  {line}" for line in to_yaml(item))
            else:
                yield f"{key}: {_scalar(item)}"
        return
    for item in value:
        if isinstance(item, (dict, list)):
            first, *others = to_yaml(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in others)
        else:
            yield f"- {_scalar(item)}"


def _scalar(value: str | int) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value
    return json.dumps(value)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


def _parser() -> _Parser:
    parser = _Parser(
        prog="render_tfjob.py",
        usage="render_tfjob.py --name=NAME --image=IMAGE --model_dir=FOLDER --volume_claim=NAME -- FLAGS_OF_TRAIN",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add: Any = parser.add_argument
    add("--name", required=True, help="name of the job, and prefix of the names of its pods")
    add("--namespace", help="namespace of the job (default: the namespace of kubectl)")
    add("--image", required=True, help="container image with estimator-tl")
    add("--workers", type=int, default=0, help="number of training tasks besides the chief (default: 0)")
    add("--ps", type=int, default=0, help="number of parameter servers (default: 0)")
    add("--evaluator", type=int, choices=(0, 1), default=0, help="1 for a task that evaluates (default: 0)")
    add("--gpus", type=int, default=0, help="GPUs of the chief and of each worker (default: 0)")
    add("--cpu", help='CPU limit of each task, e.g. "4"')
    add("--memory", help='memory limit of each task, e.g. "8Gi"')
    add("--model_dir", required=True, help="folder of the run, on the shared volume")
    add("--volume_claim", required=True, help="PersistentVolumeClaim that all tasks can write (ReadWriteMany)")
    add("--mount_path", default="/runs", help="path at which the volume is mounted (default: /runs)")
    add("--grace_secs", type=int, default=120, help="seconds for a task to save when its pod is deleted (default: 120)")
    add("--ttl_secs", type=int, default=86400, help="seconds until a finished job and its pods are removed")
    return parser


def _check(parser: _Parser, options: argparse.Namespace, train_flags: Sequence[str]) -> None:
    longest = 63 - len(_LONGEST_SUFFIX)
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", options.name) or len(options.name) > longest:
        parser.error(
            f"--name={options.name} cannot name pods; use at most {longest} lower-case letters, digits and dashes, a "
            "letter first."
        )
    for name in ("workers", "ps", "gpus", "grace_secs", "ttl_secs"):
        if getattr(options, name) < 0:
            parser.error(f"--{name}={getattr(options, name)} is below 0.")
    if PurePosixPath(options.mount_path) not in (
        PurePosixPath(options.model_dir),
        *PurePosixPath(options.model_dir).parents,
    ):
        parser.error(
            f"--model_dir={options.model_dir} is not on the shared volume, which is mounted at {options.mount_path}; "
            "choose a folder there, or another --mount_path."
        )
    if not train_flags:
        parser.error("no flags of train given; write them after --, e.g. -- --flagfile=/runs/train.flags")
    if any(re.match(r"--?model_dir(=|$)", flag) for flag in train_flags):
        parser.error("--model_dir is among the flags of train; write it before the --.")


def main(arguments: Sequence[str]) -> int:
    """Runs the program."""
    flags, train_flags = list(arguments), []
    if "--" in flags:
        separator = flags.index("--")
        flags, train_flags = flags[:separator], flags[separator + 1 :]
    parser = _parser()
    options = parser.parse_args(flags)
    _check(parser, options, train_flags)
    print("\n".join(to_yaml(manifest(options, train_flags))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
