"""The settings of a run: immutable values that are checked once and saved with the run."""

from estimator_tl.config.evaluation_spec import EvaluationSpec
from estimator_tl.config.launch_spec import LaunchSpec
from estimator_tl.config.run_spec import FIRST_RULES, DataSpec, ModelSpec, RunSpec, TrainingSpec

__all__ = ["FIRST_RULES", "DataSpec", "EvaluationSpec", "LaunchSpec", "ModelSpec", "RunSpec", "TrainingSpec"]
