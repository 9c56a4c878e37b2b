"""What a run is: settings as immutable values, checked once and saved with the run."""

from estimator_tl.config.run_spec import DataSpec, ModelSpec, RunSpec, TrainingSpec

__all__ = ["DataSpec", "ModelSpec", "RunSpec", "TrainingSpec"]
