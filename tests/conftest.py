"""Tests run on one thread, without a network, and with the shapes and types in signatures checked."""

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

LONGEST = (
    "test_every_pipeline",
    "test_adapter_laws",
    "test_resume",
    "test_paper",
    "test_check",
    "test_notebooks",
    "test_coverage",
    "test_figures",
    "test_record",
    "test_pocket_stages",
    "test_instantid",
    "test_ip_adapter",
    "test_backbones",
    "test_adapters_again",
    "test_interventions",
    "test_edit_words",
    "test_infinite_you",
    "test_model_files",
    "test_lpips",
)
"""Files that take longest, which are begun first, so that no worker ends long after the others."""


def pytest_configure(config: pytest.Config) -> None:
    """Load what tests share, but not in the process that only hands tests out to others (xdist).

    It would spend its seconds on imports before it starts the first of them.
    """
    if config.getoption("dist", "no") == "no" or hasattr(config, "workerinput"):
        config.pluginmanager.import_plugin("tests.fixtures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order of LONGEST, then the others as they come."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))
