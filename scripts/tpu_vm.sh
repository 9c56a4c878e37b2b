#!/usr/bin/env bash
# Runs one command on all workers of a Cloud TPU VM, through gcloud, and leaves with its exit code.
#
#   scripts/tpu_vm.sh --name=my-tpu --zone=us-central2-b [--project=P] [--copy=PATH] [--dry_run] -- \
#       estimator-tl legacy train.py --model_dir=gs://my-bucket/runs/flowers
#
# --copy puts a file or folder into the home directory of every worker first; --dry_run prints what would be run.
set -euo pipefail

fail() {
    echo "error: $1" >&2
    exit 2
}

name= zone= project= copy= dry_run=
while [ $# -gt 0 ]; do
    case "$1" in
    --name=*) name="${1#*=}" ;;
    --zone=*) zone="${1#*=}" ;;
    --project=*) project="${1#*=}" ;;
    --copy=*) copy="${1#*=}" ;;
    --dry_run) dry_run=yes ;;
    --)
        shift
        break
        ;;
    *) fail "unknown argument $1; known: --name= --zone= --project= --copy= --dry_run, and a command after --" ;;
    esac
    shift
done
[ -n "$name" ] || fail "no --name given; say which TPU VM, as \`gcloud compute tpus tpu-vm list\` names it."
[ -n "$zone" ] || fail "no --zone given; say where the TPU VM is, e.g. --zone=us-central2-b."
[ $# -gt 0 ] || fail "no command given; write it after --, e.g. -- estimator-tl train --flagfile=train.flags"
[ -z "$copy" ] || [ -e "$copy" ] || fail "--copy=$copy does not exist."

where=(--zone="$zone" --worker=all)
[ -z "$project" ] || where+=(--project="$project")

run() {
    if [ -n "$dry_run" ]; then
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}

[ -z "$copy" ] || run gcloud compute tpus tpu-vm scp --recurse "$copy" "$name:" "${where[@]}"
# What ssh runs is one text for a shell, so each word is quoted once more.
run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --command="$(printf '%q ' "$@")"
