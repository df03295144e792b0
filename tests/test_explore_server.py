"""The explorer's server answers this machine alone, only reads, and outlives what happens to a run."""

import http.client
import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from stepscope.analysis.explore.serve import start
from stepscope.analysis.explore.source import ExploreError, Source
from tests.exploring import many, served


def asked(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, str, bytes]:
    """Status, content type and body; the path as it stands, which other clients would tidy."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    try:
        connection.request(method, path, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.getheader("Content-Type", ""), reply.read()
    finally:
        connection.close()


def test_page_values_and_pictures_are_served(measured_pocket: Path) -> None:
    with served(measured_pocket) as address:
        status, kind, page = asked(address, "/")
        assert (status, kind) == (200, "text/html; charset=utf-8")
        assert b"measured.zarr" in page
        assert len(page) < 100_000  # Plotly comes apart from it, and is kept by the browser
        assert asked(address, "/plotly.js")[:2] == (200, "text/javascript")
        status, kind, body = asked(address, "/view?run=0&sample=1")
        assert (status, kind) == (200, "application/json")
        assert json.loads(body)["pictures"] == "decoded"
        assert asked(address, "/frame?run=0&sample=1&step=2")[:2] == (200, "image/webp")


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/zarr.json",
        "//etc/passwd",
        "/page/",
    ],
)
def test_no_path_names_a_file(pocket_run: Path, path: str) -> None:
    with served(pocket_run) as address:
        status, _, body = asked(address, path)
        assert status == 404
        assert json.loads(body)["error"].startswith("nothing at ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_only_reads(pocket_run: Path, method: str) -> None:
    with served(pocket_run) as address:
        assert asked(address, "/view?run=0&sample=0", method)[0] == 501


def test_it_answers_this_machine_alone(pocket_run: Path) -> None:
    """Bound to the loopback address; and a page elsewhere, whose name leads here, is refused."""
    with served(pocket_run) as address:
        assert address.startswith("http://127.0.0.1:")
        assert asked(address, "/", Host="evil.example:80")[0] == 403
        assert asked(address, "/", Host="localhost:9000")[0] == 200  # through ssh -L


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ("view?run=0&sample=7", "no sample 7"),
        ("view?run=0", "sample='' is no whole number"),
        ("tokens?run=0&sample=0&step=0&variable=x0", "has no values of single tokens"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(
    pocket_run: Path, question: str, error: str
) -> None:
    with served(pocket_run) as address:
        status, _, body = asked(address, f"/{question}")
        assert status == 404
        assert error in json.loads(body)["error"]


def test_a_damaged_part_is_an_answer_and_the_rest_is_shown(tmp_path: Path) -> None:
    with served(many(tmp_path / "run.zarr", 3, damaged=True)) as address:
        status, _, body = asked(address, "/view?run=0&sample=0")
        assert (status, "cannot be read now" in json.loads(body)["error"]) == (500, True)
        assert asked(address, "/view?run=0&sample=1")[0] == 200


def test_a_run_that_goes_and_comes_back_is_shown_again(pocket_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    shutil.copytree(pocket_run, path)
    with served(path) as address:
        assert asked(address, "/about?run=0")[0] == 200
        shutil.rmtree(path)
        gone: Any = asked(address, "/about?run=0")
        assert gone[0] == 404
        assert "is gone" in json.loads(gone[2])["error"]
        shutil.copytree(pocket_run, path)
        assert asked(address, "/about?run=0")[0] == 200


def test_a_named_port_that_is_taken_is_said(pocket_run: Path) -> None:
    with served(pocket_run) as address:
        port = urlsplit(address).port
        with pytest.raises(ExploreError, match=f"port {port} cannot be used"):
            start([Source(str(pocket_run))], port)
