"""Writes the table of versions from the JUnit files of test_matrix.sh. Arguments: RESULTS TARGET GATING..."""

from __future__ import annotations

import collections
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

# Feature -> the tests that cover it, as prefixes of their module names; the first match counts.
AREAS = {
    "Estimator API: canned estimators, heads, exporters, hooks, `model_to_estimator`": (
        "tests.compat.test_estimator",
        "tests.compat.test_enable",
        "tests.compat.test_scaffolds",
    ),
    "distribution strategies, RunConfig modes": ("tests.compat.test_distribution",),
    "clusters of processes: parameter servers, MultiWorkerMirrored, evaluator": (
        "tests.test_clusters",
        "tests.contract.test_clusters",
        "tests.faults.test_cluster",
    ),
    "existing programs under `estimator-tl legacy`": ("tests.legacy",),
    "transfer learning: sources, tuning, heads, optimizers, inputs": (
        "tests.contract",
        "tests.backbones",
        "tests.tuning",
        "tests.heads",
        "tests.optimization",
        "tests.inputs",
        "tests.faults",
        "tests.test_pitfalls",
        "tests.recipes",
    ),
    "commands, runs, export": ("tests.cli", "tests.launch", "tests.scripts", "tests.export", "tests.test_readme"),
}
TEXT = """# What works on which TensorFlow

Made by `scripts/test_matrix.sh` from the results of `make test`; do not edit. A cell says how many tests passed;
*n of m* where some failed, which are named below. Tests that a version skips (they say why) are not counted; a column
run at an earlier state of the project has fewer. The versions in bold must pass before anything is merged, the others
are run for information. Linux, CPU.

{table}

{failures}
## Not on TensorFlow 2.16 and later

- TPU embedding: its optimizer parameters and configurations raise an error that says so.
- TPUEstimator with `use_tpu=True` builds up to the point where a TPU is needed; it has not been run on one. The
  health of TPU workers is not watched there.
- BoostedTrees and TensorForest: the package tensorflow-estimator 2.15.0 has them no more, on TensorFlow 2.15 either.
"""


def main(results: Path, target: Path, gating: list[str]) -> int:
    """Writes the table; returns 1 if a gating version has failures or no results.

    A version without new results keeps its column and its failures from the old table.
    """
    found = {path.stem: read(path) for path in results.glob("*.xml")}
    columns = kept(target.read_text() if target.exists() else "")
    for name, areas in found.items():
        failed = [test for _, broken in areas.values() for test in broken]
        listed = "\n".join(f"- `{test}`" for test in failed)
        columns[name] = {area: cell(*areas[area]) for area in AREAS}, listed
    names = sorted(columns, key=order)
    lines = ["| | " + " | ".join(title(name, gating) for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for area in AREAS:
        lines.append(f"| {area} | " + " | ".join(columns[name][0].get(area, "") for name in names) + " |")
    failures = [f"Failed on {title(name, [])}:\n\n{columns[name][1]}\n" for name in names if columns[name][1]]
    text = TEXT.format(table="\n".join(lines), failures="\n".join(failures))
    target.write_text(text)
    missing = [name for name in gating if name not in found or any(broken for _, broken in found[name].values())]
    for name in missing:
        print(f"gating version {name} has failures or was not run", file=sys.stderr)
    return 1 if missing else 0


def kept(text: str) -> dict[str, tuple[dict[str, str], str]]:
    """Returns the columns of an existing table: cells by area, and the list of failures."""
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    if len(rows) < 2:
        return {}
    columns: dict[str, tuple[dict[str, str], str]] = {}
    for number, head in enumerate(rows[0][1:], 1):
        plain = head.strip("*")
        failures = re.search(rf"^Failed on {re.escape(plain)}:\n\n((?:- .*\n)+)", text, re.MULTILINE)
        cells = {row[0]: row[number] for row in rows[2:]}
        columns[plain.replace(", Python ", "@")] = cells, failures.group(1).rstrip() if failures else ""
    return columns


def read(path: Path) -> dict[str, tuple[int, list[str]]]:
    """Returns for each area the number of tests that passed, and the names of those that failed."""
    passed: collections.Counter[str] = collections.Counter()
    failed = collections.defaultdict(list)
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        module = case.get("classname", "")
        area = next((name for name, prefixes in AREAS.items() if module.startswith(prefixes)), None)
        if area is None or case.find("skipped") is not None:
            continue
        if case.find("failure") is not None or case.find("error") is not None:
            failed[area].append(f"{module}::{case.get('name')}")
        else:
            passed[area] += 1
    return {area: (passed[area], failed[area]) for area in AREAS}


def order(name: str) -> tuple[list[int], list[int]]:
    """Returns the sort key of a version: TensorFlow first, then Python."""
    tensorflow, _, python = name.partition("@")
    return [int(part) for part in tensorflow.split(".")], [int(part) for part in python.split(".")]


def title(name: str, gating: list[str]) -> str:
    """Returns "2.21.0, Python 3.11", in bold for a gating version."""
    tensorflow, _, python = name.partition("@")
    text = f"{tensorflow}, Python {python}"
    return f"**{text}**" if name in gating else text


def cell(passed: int, failed: list[str]) -> str:
    """Returns "12", or "11 of 12"."""
    return f"{passed} of {passed + len(failed)}" if failed else str(passed)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
