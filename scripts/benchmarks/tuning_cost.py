"""Measures the cost of tuning for a training step of estimator_tl, as ratios of step times.

    python scripts/benchmarks/tuning_cost.py --source=keras
    python scripts/benchmarks/tuning_cost.py --source=saved_model --saved_model=FOLDER --batch_size=16

The tunings are a frozen backbone, a partly trained backbone at several depths,
and a full one. For each tuning, up to four contestants train the same variables
on the same batches in memory: a hand-written model_fn, estimator_tl with this
tuning alone, and two graphs of a phased run through all tunings, in the phase
with this tuning. The first of these graphs is for this phase only, as the
launcher runs it. The second is the gated graph, which serves all phases and has
no goal. All contestants use Adam and call the backbone for inference. The
benchmark compares all variables of the backbone before and after training; it
fails if the contestants have not changed the same variables.

Short blocks of steps of the contestants take turns (see `throughput_pacing`). A
ratio is the median over the rounds of the ratios within a round; its interval
contains the true median with a probability of 95%. CPU time counts all threads
of the process. It hardly depends on other work of the machine, but does not
include waiting; the clock includes both.
"""

from __future__ import annotations

import argparse
import sys
import tempfile

from estimator_tl.compat import quiet

_CLASSES = 5
_TUNINGS = ("frozen", "partial", "full")


def parse_arguments() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", choices=("keras", "saved_model"), default="keras", help="(default: %(default)s).")
    parser.add_argument(
        "--keras",
        default="keras.MobileNet(alpha=0.25, weights=None)",
        help="for --source=keras: a Keras Application or a file, as for etl.backbone (default: %(default)s).",
    )
    parser.add_argument("--saved_model", help="for --source=saved_model: a TF2 SavedModel folder.")
    parser.add_argument("--batch_size", type=int, default=32, help="examples per step (default: %(default)s).")
    parser.add_argument("--steps", type=int, default=2, help="timed steps per block (default: %(default)s).")
    parser.add_argument("--rounds", type=int, default=40, help="blocks of each contestant (default: %(default)s).")
    parser.add_argument("--depths", type=int, default=5, help="depths of partial tuning (default: %(default)s).")
    parser.add_argument(
        "--tuning", default=",".join(_TUNINGS), help="tunings to measure, separated by commas (default: %(default)s)."
    )
    parser.add_argument(
        "--phases",
        choices=("both", "alone", "none"),
        default="both",
        help="graphs of the phased run: both, only the graph of the phase, or none (default: %(default)s).",
    )
    arguments = parser.parse_args()
    if arguments.source == "saved_model" and not arguments.saved_model:
        parser.error("--source=saved_model needs --saved_model=FOLDER")
    if not set(arguments.tuning.split(",")) <= set(_TUNINGS):
        parser.error(f"--tuning={arguments.tuning}: name some of {','.join(_TUNINGS)}")
    return arguments


def main() -> None:
    """Measures and prints the tables."""
    arguments = parse_arguments()
    quiet.import_tensorflow_quietly()
    quiet.set_log_level("error")
    from throughput_contestants import Task
    from throughput_pacing import interleave
    from throughput_plain import plain_network
    from tuning_cost_cases import make_cases
    from tuning_cost_contestants import Group
    from tuning_cost_report import comparisons, header, line, verdicts

    import estimator_tl as etl
    from estimator_tl.compat import tf

    handle = arguments.keras if arguments.source == "keras" else arguments.saved_model
    source = etl.backbone(handle)
    network = plain_network(handle, source)
    cases = make_cases(source.structure, arguments.depths)
    size = "x".join(map(str, source.image_spec.shape))
    print(f"TensorFlow {tf.__version__}, {arguments.source}: {handle}")
    print(f"batch {arguments.batch_size} of {size}, {arguments.rounds} rounds of {arguments.steps} steps\n")
    print(header(), flush=True)
    found = []
    for number, case in enumerate(cases):
        if case.sort not in arguments.tuning.split(","):
            continue
        with tempfile.TemporaryDirectory() as folder:
            task = Task(source, network, arguments.batch_size, _CLASSES, folder)
            group = Group(task, cases, number, arguments.phases)
            samples = interleave(group.contestants(), arguments.steps, arguments.rounds, _progress)
        _progress("")
        new = comparisons(case, samples, arguments.steps, group.moved())
        print("\n".join(map(line, new)), flush=True)
        found += new
    print(f"\n{verdicts(found)}")


def _progress(text: str) -> None:
    """Shows a line of progress, on terminals only."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text:60}\r")
        sys.stderr.flush()


if __name__ == "__main__":
    main()
