"""Packaging of estimator_tl."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (HERE / "estimator_tl" / "__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)

DEMO = ["scikit-learn>=1.3", "pillow>=9"]
# For SavedModels with tokenizers inside; there is one for each minor version of TensorFlow, not for every platform.
TEXT = ["tensorflow-text>=2.15,<2.22"]
TEXT_ON_LINUX = [f"{TEXT[0]}; platform_system == 'Linux' and platform_machine == 'x86_64' and python_version < '3.13'"]
CHECKS = ["pytest>=7.4", "pytest-timeout>=2.2", "pytest-xdist>=3.3", "pyyaml>=6", "ruff>=0.6", "mypy>=1.8"]
TEST = [*CHECKS, *DEMO, *TEXT_ON_LINUX]

setup(
    name="estimator_tl",
    version=VERSION,
    description="Transfer learning on the TensorFlow Estimator API, from TensorFlow 2.15 to the newest",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["estimator_tl", "estimator_tl.*"]),
    package_data={"estimator_tl": ["py.typed", "revival/startup/*.py"]},
    python_requires=">=3.9",
    install_requires=[
        "tensorflow>=2.15,<2.22",
        "tensorflow-estimator==2.15.0",
        "tensorflow-hub>=0.15",
        "tf_keras>=2.15,<2.22",
        "absl-py>=1.4",
        "h5py>=3.8",
        "numpy>=1.23",
        "protobuf<7.34",  # TensorFlow 2.20 uses an argument that protobuf 7.34 removed
        "setuptools<81",  # tensorflow-hub imports pkg_resources, which setuptools 81 removed
    ],
    extras_require={
        "demo": DEMO,
        "kaggle": ["kagglehub>=0.3"],
        "plots": ["matplotlib>=3.7"],
        "test": TEST,
        "text": TEXT,
    },
    entry_points={"console_scripts": ["estimator-tl = estimator_tl.cli.main:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
