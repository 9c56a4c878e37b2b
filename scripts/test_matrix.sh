#!/usr/bin/env bash
# Runs the tests on several TensorFlow and Python versions and writes docs/TENSORFLOW_VERSIONS.md from the results.
#
#   scripts/test_matrix.sh                      all of them
#   scripts/test_matrix.sh 2.18.1@3.11 ...      these, and the table from all results that are there
#   scripts/test_matrix.sh table                the table only
#
# The two of GATING must pass; the others are for information. Results are kept in build/test_matrix.
set -euo pipefail
cd "$(dirname "$0")/.."
GATING="2.15.1@3.11 2.21.0@3.11"
OTHERS="2.16.2@3.11 2.17.1@3.11 2.18.1@3.11 2.19.1@3.11 2.20.0@3.11 2.20.0@3.9 2.21.0@3.10 2.21.0@3.12 2.21.0@3.13"
results=build/test_matrix
mkdir -p "$results"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
unset VIRTUAL_ENV

# Finds an interpreter of the wanted minor version, pyenv's included.
find_python() {
    local candidate
    for candidate in "python$1" "$HOME"/.pyenv/versions/"$1".*/bin/python; do
        if "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

run_one() {
    local tensorflow="${1%@*}" version="${1#*@}" python venv="$work/$1"
    if ! python="$(find_python "$version")"; then
        echo "== $1: no Python $version here"
        return
    fi
    echo "== $1"
    "$python" -m venv "$venv"
    if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -e ".[test,demo]" \
        "tensorflow==$tensorflow" >"$results/$1.log" 2>&1; then
        tail -n 3 "$results/$1.log"
        echo "== $1: could not be installed"
    else
        "$venv/bin/python" -m pytest -q -p no:cacheprovider -n "${JOBS:-2}" --dist worksteal -m "not full" \
            --junitxml="$results/$1.xml" >"$results/$1.log" 2>&1 || true
        grep -aE "(passed|failed|error).* in [0-9.]+s" "$results/$1.log" | tail -n 1
    fi
    rm -rf "$venv"
}

if [ "${1:-}" != table ]; then
    for entry in ${*:-$GATING $OTHERS}; do
        run_one "$entry"
    done
fi
${PYTHON:-python3} scripts/test_matrix_table.py "$results" docs/TENSORFLOW_VERSIONS.md $GATING
