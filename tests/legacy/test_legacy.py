"""`estimator-tl legacy` runs programs as users wrote them, on every TensorFlow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from estimator_tl.compat.versions import has_native_estimator
from estimator_tl.revival import program

PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(__file__).resolve().parents[2]
# Where TensorFlow has Estimator itself the command only runs the program.
brings_estimator = pytest.mark.full if has_native_estimator() else lambda test: test


def legacy(*arguments, cwd=None, **environment):
    """Runs the command in a process of its own."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "estimator_tl", "legacy", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
    )


def printed(done):
    """The program's output, once it has left with 0."""
    assert done.returncode == 0, done.stderr
    return done.stdout


@brings_estimator
def test_canned_estimator_with_feature_columns(tmp_path):
    out = printed(legacy(PROGRAMS / "canned_columns.py", "--model_dir", tmp_path / "run"))
    assert "step 150 accuracy 1.000 auc 1.000" in out
    assert "served class 1" in out


@brings_estimator
def test_custom_model_fn_with_v1_layers(tmp_path):
    out = printed(legacy(PROGRAMS / "v1_layers.py", f"--model_dir={tmp_path / 'run'}", "--steps=30"))
    assert "step 30 loss" in out
    assert "variables bn/beta,bn/beta/Momentum,bn/gamma,bn/gamma/Momentum,bn/moving_mean,bn/moving_variance," in out
    assert "moving mean moved" in out


@brings_estimator
def test_hub_layer_in_a_model_fn(tmp_path, hub_module):
    out = printed(legacy(PROGRAMS / "hub_layer.py", hub_module.handle, tmp_path / "run"))
    assert out.splitlines() == [
        "logits/kernel moved",
        "stem/conv1/kernel moved",
        "top/conv2/kernel moved",
        "step 6",
    ]


def test_tpu_estimator_on_cpu(tmp_path):
    out = printed(legacy(PROGRAMS / "tpu_on_cpu.py", f"--model_dir={tmp_path / 'run'}"))
    assert "step 60 good ['error', 'global_step', 'loss']" in out


def test_tpu_estimator_without_a_tpu_fails_where_the_tpu_is_needed(tmp_path):
    done = legacy(PROGRAMS / "tpu_on_cpu.py", f"--model_dir={tmp_path / 'run'}", "--use_tpu")
    assert done.returncode == 1
    assert "RuntimeError: Cannot find any TPU cores in the system." in done.stderr


def test_v2_behavior_off_with_queues_and_one_shot_iterators(tmp_path):
    out = printed(legacy(PROGRAMS / "v1_queues.py", tmp_path / "run"))
    assert "step and loss {'loss': " in out
    assert "'global_step': 100" in out.replace("np.int64(100)", "100")
    assert "regressor loss below True" in out


def test_module_in_a_package_with_relative_imports(tmp_path):
    out = printed(legacy("-m", "trainer.task", "--job-dir", tmp_path / "run", cwd=PROGRAMS))
    assert "step 30 ['absolute_error', 'average_loss', 'global_step'" in out
    assert "loss below a tenth True" in out
    assert "exports 1 1" in out


@pytest.fixture
def script(tmp_path):
    def write(text, name="program.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_program_sees_what_python_would_show_it(script):
    path = script(
        "import sys\n"
        "import tensorflow as tf\n"
        "main = sys.modules['__main__']\n"
        "print(__name__, __file__ == sys.argv[0], sys.argv[1:], main.__dict__ is globals(), sys.path[0])\n"
        "import keras, keras.backend\n"
        "from keras.layers import Dense\n"
        "from tensorflow.keras import layers\n"
        "print(issubclass(Dense, tf.Module), Dense is layers.Dense is tf.keras.layers.Dense, keras.__version__[:2])\n"
    )
    out = printed(legacy(path, "--debug", "-x", "--", "--help"))
    assert out.splitlines() == [
        f"__main__ True ['--debug', '-x', '--', '--help'] True {path.parent}",
        "True True 2.",
    ]


CHILDREN = """
import multiprocessing, subprocess, sys
import tensorflow as tf

def job():
    print("spawned", tf.estimator.ModeKeys.TRAIN, issubclass(tf.keras.Model, tf.Module), flush=True)

if __name__ == "__main__":
    if sys.argv[1:]:
        print("child", tf.estimator.ModeKeys.EVAL, flush=True)
        sys.exit(5)
    process = multiprocessing.get_context("spawn").Process(target=job)
    process.start()
    process.join()
    print(process.exitcode, subprocess.run([sys.executable, __file__, "again"]).returncode)
"""


@brings_estimator
def test_processes_that_the_program_starts_have_estimator_too(script):
    assert printed(legacy(script(CHILDREN))).splitlines() == ["spawned train True", "child eval", "0 5"]


SURROUNDINGS = """
import inspect, sys
assert "tensorflow" not in sys.modules
print(__annotations__, __loader__.get_filename("__main__") == __file__, inspect.stack()[-1].filename == __file__)
print([entry for entry in sys.path if "startup" in entry], hidden_one_ran, sys.warnoptions, sys.flags.optimize)
if "--interrupt" in sys.argv:
    import tensorflow
    raise KeyboardInterrupt
"""


@brings_estimator
def test_nothing_but_tensorflow_is_other_than_in_plain_python(script, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sitecustomize.py").write_text("import builtins; builtins.hidden_one_ran = True\n")
    path = os.pathsep.join([str(ROOT), str(tmp_path / "own")])
    command = [sys.executable, "-O", "-W", "error::ImportWarning", "-m", "estimator_tl", "legacy", script(SURROUNDINGS)]
    done = subprocess.run(
        [*command, "--interrupt"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.stdout.splitlines() == ["{} True True", "[] True ['error::ImportWarning'] 1"]
    assert done.returncode == -signal.SIGINT
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")


def test_another_python_that_the_program_starts_is_left_alone():
    code = (
        "import sys; print(any('import_hook' in type(finder).__module__ for finder in sys.meta_path), "
        f"{str(program.STARTUP)!r} in sys.path)"
    )
    path = os.pathsep.join([str(program.STARTUP), str(ROOT)])
    seen = []
    for prefix in (sys.prefix, "/another"):
        environment = {**os.environ, "PYTHONPATH": path, "ESTIMATOR_TL_PREFIX": prefix}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        seen.append(done.stdout.strip())
    assert seen == ["True False", "False False"]


@pytest.mark.skipif(has_native_estimator(), reason="on TensorFlow 2.15 nothing has to be brought in")
def test_flags_that_keep_estimator_away_are_refused(script):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from estimator_tl.cli.main import main; "
    code += f"sys.exit(main(['legacy', {str(script('print(1)'))!r}]))"
    done = subprocess.run([sys.executable, "-E", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: legacy: Python's flags -E, -I and -S")


def test_an_exception_shows_the_programs_own_traceback(script):
    path = script("def fail():\n    raise LookupError('mine')\n\nfail()\n")
    done = legacy(path)
    plain = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == plain.returncode == 1
    assert done.stderr.endswith(plain.stderr)
    assert done.stderr.count("Traceback") == 1


def test_a_syntax_error_and_a_failing_import_show_as_in_python(script):
    broken = script("x = (\n", "broken.py")
    importing = script("import broken\n", "importing.py")
    for path in (broken, importing):
        plain = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False)
        done = legacy(path)
        assert done.returncode == plain.returncode == 1
        assert done.stderr.endswith(plain.stderr)


@pytest.mark.parametrize(("leaving", "code"), [("sys.exit(7)", 7), ("sys.exit('why')", 1), ("sys.exit()", 0)])
def test_an_exit_code_passes_through(script, leaving, code):
    done = legacy(script(f"import sys\n{leaving}\n"))
    assert done.returncode == code
    assert ("why" in done.stderr) is ("why" in leaving)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["progam.py"], "did you mean 'program.py'"),
        (["nowhere/program.py"], "nowhere/program.py does not exist; check the path."),
        (["."], ". is a folder; name its script, or use -m."),
        (["-m"], "-m needs the name of a module"),
        (["-m", "no_such_module.task"], "no module named 'no_such_module.task'"),
        (["--verbosity=info", "program.py"], "give the script first"),
    ],
)
def test_bad_calls_get_one_line(script, arguments, message):
    path = script("print('ran')\n")
    done = legacy(*arguments, cwd=path.parent)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: legacy: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "ran" not in done.stdout


def test_help_tells_how_to_call_it():
    assert "legacy -m MODULE" in printed(legacy("--help"))
