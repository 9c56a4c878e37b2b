"""Runs when a Python process of `estimator-tl legacy` starts, or one that such a program starts."""

import importlib.machinery
import importlib.util
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _run_hidden_sitecustomize() -> None:
    """Runs the sitecustomize that this file hides, if there is one."""
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
if os.environ.get("ESTIMATOR_TL_PREFIX") == sys.prefix:  # do nothing in a Python of another environment
    if importlib.util.find_spec("estimator_tl") is None:
        sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(_HERE))))
    from estimator_tl.revival import import_hook

    import_hook.install()
_run_hidden_sitecustomize()
