"""What Kubeflow's operator takes as a TFJob, and the TF_CONFIG that it gives each pod.

Written down from the public CRD (kubeflow.org_tfjobs.yaml), the operator's validation and its genTFConfigJSONStr.
"""

from __future__ import annotations

import json
import re

# A type, or a dict of fields, or [what a list holds]; a field with an exclamation mark is required.
_CONTAINER = {
    "name!": str,
    "image!": str,
    "command": [str],
    "args": [str],
    "env": [{"name!": str, "value": str}],
    "ports": [{"name": str, "containerPort!": int, "hostPort": int, "protocol": str}],
    "resources": {"limits": dict, "requests": dict},
    "volumeMounts": [{"name!": str, "mountPath!": str, "readOnly": bool, "subPath": str}],
    "imagePullPolicy": str,
    "workingDir": str,
}
_POD = {
    "containers!": [_CONTAINER],
    "volumes": [{"name!": str, "persistentVolumeClaim": {"claimName!": str, "readOnly": bool}}],
    "terminationGracePeriodSeconds": int,
    "activeDeadlineSeconds": int,
    "nodeSelector": dict,
    "serviceAccountName": str,
}
_REPLICA = {"replicas": int, "restartPolicy": str, "template": {"metadata": dict, "spec": _POD}}
JOBS = ("Chief", "Worker", "PS", "Evaluator", "Master")
TFJOB = {
    "apiVersion!": str,
    "kind!": str,
    "metadata!": {"name!": str, "namespace": str, "labels": dict, "annotations": dict},
    "spec!": {
        "enableDynamicWorker": bool,
        "runPolicy": {
            "activeDeadlineSeconds": int,
            "backoffLimit": int,
            "cleanPodPolicy": str,
            "schedulingPolicy": dict,
            "suspend": bool,
            "ttlSecondsAfterFinished": int,
        },
        "successPolicy": str,
        "tfReplicaSpecs!": dict.fromkeys(JOBS, _REPLICA),
    },
}


def problems(value, schema=None, where="TFJob"):
    """Yields what the API server or the operator would say against a manifest."""
    if schema is None:
        yield from problems(value, TFJOB, where)
        yield from _refused_by_the_operator(value)
    elif isinstance(schema, dict) and isinstance(value, dict):
        known = {name.rstrip("!"): part for name, part in schema.items()}
        for name in schema:
            if name.endswith("!") and name[:-1] not in value:
                yield f"{where} lacks {name[:-1]}"
        for name, item in value.items():
            if name not in known:
                yield f"{where} has an unknown field {name}"
            else:
                yield from problems(item, known[name], f"{where}.{name}")
    elif isinstance(schema, list) and isinstance(value, list):
        for item in value:
            yield from problems(item, schema[0], f"{where}[]")
    elif not isinstance(schema, type) or not isinstance(value, schema) or (schema is int and isinstance(value, bool)):
        yield f"{where} is {value!r}, not of {schema}"


def _refused_by_the_operator(job):
    if (job["apiVersion"], job["kind"]) != ("kubeflow.org/v1", "TFJob"):
        yield "not a TFJob of kubeflow.org/v1"
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", job["metadata"]["name"]):
        yield "the name is no DNS label"
    if job["spec"]["runPolicy"]["cleanPodPolicy"] not in ("None", "Running", "All"):
        yield "unknown cleanPodPolicy"
    replicas = job["spec"]["tfReplicaSpecs"]
    if sum(replicas[name]["replicas"] for name in ("Chief", "Master") if name in replicas) > 1:
        yield "more than one chief"
    for name, spec in replicas.items():
        if spec["restartPolicy"] not in ("Always", "OnFailure", "Never", "ExitCode"):
            yield f"{name} has an unknown restartPolicy"
        if [container["name"] for container in spec["template"]["spec"]["containers"]].count("tensorflow") != 1:
            yield f"{name} has no container named tensorflow"
        pod = spec["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", ())}
        if mounted != {volume["name"] for volume in pod.get("volumes", ())}:
            yield f"{name}: volumes and their mounts differ"


def tf_config(job, replica, index):
    """Returns the TF_CONFIG of a pod; None where the operator sets none, as for a job of a single pod."""
    replicas = job["spec"]["tfReplicaSpecs"]
    if sum(spec["replicas"] for spec in replicas.values()) == 1:
        return None
    namespace, cluster = job["metadata"].get("namespace", "default"), {}
    for name, spec in replicas.items():
        if name != "Evaluator":
            (container,) = spec["template"]["spec"]["containers"]
            (port,) = [port["containerPort"] for port in container["ports"] if port["name"] == "tfjob-port"]
            hosts = [f"{job['metadata']['name']}-{name.lower()}-{number}" for number in range(spec["replicas"])]
            cluster[name.lower()] = [f"{host}.{namespace}.svc:{port}" for host in hosts]
    return json.dumps({"cluster": cluster, "task": {"type": replica.lower(), "index": index}, "environment": "cloud"})
