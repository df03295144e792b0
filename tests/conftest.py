"""Tests run on one thread, without a network, and with the shapes and types in signatures checked."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Load what tests share, but not in the process that only hands tests out to others (xdist).

    It would spend its seconds on imports before it starts the first of them.
    """
    if config.getoption("dist", "no") == "no" or hasattr(config, "workerinput"):
        config.pluginmanager.import_plugin("tests.fixtures")
