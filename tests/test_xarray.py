"""A measured run as people use it: plain xarray draws it, groups it and writes it to netCDF."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt

from stepscope.analysis.axes import MEANINGS
from stepscope.analysis.measure import Settings, build_metric
from stepscope.analysis.metrics import METRICS
from stepscope.analysis.runs import open_recorded
from stepscope.hooks.attributes import HASHED, packed, unpacked
from stepscope.hooks.store import Run
from stepscope.hooks.vocabulary import (
    BLOCK_COORDINATES,
    INJECTION_COORDINATES,
    SAMPLE_COORDINATES,
    VARIABLES,
    described,
)

README = Path(__file__).parents[1] / "README.md"
WORDS = 5
"""Most words of a long name, which labels an axis."""


@pytest.fixture(params=[None, "analysis"], ids=["recorded", "measured"])
def group(request, measured_pocket) -> xr.Dataset:
    """The run, and what was measured of it, each opened alone."""
    return xr.open_zarr(measured_pocket, group=request.param)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_every_number_with_one_or_two_free_dimensions_is_drawn(group):
    numeric = {n: v for n, v in group.data_vars.items() if v.dtype.kind in "fiub"}
    assert numeric
    drawn: set[str] = set()
    for values in numeric.values():
        values = values.squeeze()  # xarray draws no axis of one point
        free = [(axis,) for axis in values.dims if axis not in drawn] + [values.dims[-2:]]
        for axes in free:
            plt.clf()
            values.isel({axis: 0 for axis in values.dims if axis not in axes}).plot(ax=plt.gca())  # type: ignore[operator]
        drawn |= {str(axis) for axis in values.dims}
    assert drawn >= {axis for axis, size in group.sizes.items() if size > 1} - {"xy"}


def test_the_contribution_of_every_block_at_every_step_is_a_map(measured_pocket):
    run = xr.open_zarr(measured_pocket)
    run.contribution.isel(sample=0, branch=0).plot()
    labels = [text.get_text() for text in plt.gca().get_xticklabels()]
    assert set(run.injection.values.tolist()) <= set(labels)
    one = run.contribution.sel(injection="double.03.image.controlnet")
    assert one.dims == ("sample", "step", "branch")
    words = ["injection_adapter", "injection_block", "injection_stream"]
    table = run.contribution.load().set_index(injection=words).unstack("injection")
    place = dict(zip(words, ("controlnet", "double.03", "image"), strict=True))
    xr.testing.assert_equal(table.sel(place).variable, one.variable)


def shown(values: xr.DataArray) -> np.ndarray:
    """What xarray draws of a picture, in its own pixels: (row, column) of grey, 0 to 255."""
    sides = [values.sizes[axis] for axis in values.dims if axis != "rgb"]
    figure = plt.figure(figsize=(sides[1] / 100, sides[0] / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    kind = values.plot.imshow if "rgb" in values.dims else values.plot.pcolormesh
    kind(ax=axes, **({} if "rgb" in values.dims else {"add_colorbar": False, "cmap": "gray"}))
    axes.set_axis_off()
    axes.set_title("")
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].mean(-1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["image", "face_crop", "x0", "decoded"])
def test_pictures_stand_upright(measured_pocket, name):
    both = xr.open_zarr(measured_pocket), xr.open_zarr(measured_pocket, group="analysis")
    values = next(one[name] for one in both if name in one).isel(sample=0)
    values = values.isel({axis: -1 for axis in ("step", "channel") if axis in values.dims}).load()
    seen = shown(values)
    grey = values.values.mean(-1) if "rgb" in values.dims else values.values
    alike = [np.corrcoef(seen.ravel(), one.ravel())[0, 1] for one in (grey, grey[::-1])]
    assert alike[0] > 0.95 > alike[1]


def test_what_was_measured_says_whose_and_at_what_noise(measured_pocket):
    run, measured = xr.open_zarr(measured_pocket), xr.open_zarr(measured_pocket, group="analysis")
    for name in ("face", "prompt", "seed", "sigma"):
        assert name in measured.coords
        xr.testing.assert_identical(measured[name].variable.load(), run[name].variable.load())
    tree = xr.open_datatree(measured_pocket, engine="zarr")
    by_face = tree["analysis"].similarity.groupby("face").mean()
    assert by_face.face.values.tolist() == sorted(run.face.values.tolist())


def test_the_five_lines_of_the_readme_draw_identity_against_sigma(
    measured_pocket, tmp_path, monkeypatch
):
    (lines,) = re.findall(
        r"^```python\n(import xarray as xr\n\nmeasured = .*?)^```", README.read_text(), re.M | re.S
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "first.zarr").symlink_to(measured_pocket)
    exec(lines, {})
    run = xr.open_zarr(measured_pocket, group="analysis").load()
    axes = plt.gca()
    assert axes.get_xlabel() == "sigma [1]"
    legend = axes.get_legend()
    assert legend is not None
    assert legend.get_title().get_text() == "face"
    assert [text.get_text() for text in legend.get_texts()] == sorted(run.face.values.tolist())
    for line, face in zip(axes.get_lines(), sorted(run.face.values.tolist()), strict=True):
        own = run.similarity.sel(recogniser="pocket", alignment="fixed")
        own = own.isel(sample=(run.face == face).values)
        np.testing.assert_array_equal(line.get_xdata(), run.sigma)
        np.testing.assert_allclose(np.asarray(line.get_ydata()), own.mean("sample"), rtol=1e-6)


def test_it_is_written_to_netcdf_and_read_back(group, tmp_path):
    group.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    back = xr.open_dataset(tmp_path / "run.nc", engine="h5netcdf").load()
    assert set(back.variables) == set(group.variables)
    for name, values in group.variables.items():
        assert back[name].dtype.kind == values.dtype.kind.replace("T", "U")
        np.testing.assert_array_equal(
            back[name].values, np.asarray(values).astype(back[name].dtype)
        )
    assert unpacked(back.attrs) == unpacked(group.attrs)


def test_the_whole_tree_is_written_to_netcdf(measured_pocket, tmp_path):
    xr.open_datatree(measured_pocket, engine="zarr").to_netcdf(
        tmp_path / "run.nc", engine="h5netcdf"
    )
    assert xr.open_groups(tmp_path / "run.nc", engine="h5netcdf").keys() == {"/", "/analysis"}


def test_attributes_on_disk_are_numbers_and_text_and_hashes_are_one(measured_pocket):
    stored, given = xr.open_zarr(measured_pocket).attrs, Run.open(measured_pocket).attributes
    assert {type(value) for value in stored.values()} <= {str, int, float}
    assert set(HASHED) <= set(given)
    assert json.loads(stored["weight_hashes"]) == {name: given[name] for name in HASHED}
    assert not set(HASHED) & set(stored)
    assert open_recorded(measured_pocket).attrs == {
        n: v for n, v in given.items() if n != "coordinates"
    }


def test_attributes_come_back_as_they_were_given():
    given = {
        "a": {"b": [1, None]},
        "none": None,
        "yes": True,
        "text": "{}",
        "models": {},
        "n": [0.5],
    }
    assert unpacked(packed(given)) == given
    assert unpacked(given) == given  # of a run before them


def test_yes_and_no_are_truth_values(measured_pocket):
    run, measured = xr.open_zarr(measured_pocket), xr.open_zarr(measured_pocket, group="analysis")
    assert run.done.dtype == measured.conditioning.dtype == bool
    for name in ("found", "final_found"):
        yes = measured[name.replace("found", "face_found")]
        assert yes.dtype == bool
        np.testing.assert_array_equal(yes, measured[name] == 1)
    assert measured.face_found.all()


def test_blocks_are_counted_over_the_whole_network(measured_pocket):
    run = xr.open_zarr(measured_pocket)
    for axis in ("block", "adapter_block"):
        assert run[f"{axis}_index"].values.tolist() == list(range(run.sizes[axis]))
        kinds = [name.partition(".")[0] for name in run[axis].values.tolist()]
        assert run[f"{axis}_kind"].values.tolist() == kinds
    deep = run.residual_norm.swap_dims(block="block_index").sel(block_index=slice(4, 9))
    assert deep.sizes["block_index"] == 6


def test_long_names_are_short_and_definitions_are_beside_them(group, measured_pocket):
    declared = {**MEANINGS, **BLOCK_COORDINATES, **INJECTION_COORDINATES}
    declared |= {n: v.long_name for n, v in {**VARIABLES, **SAMPLE_COORDINATES}.items()}
    run = open_recorded(measured_pocket)
    for kind in METRICS.values():
        metric = build_metric(kind, Settings())
        quantities = metric.quantities(run)
        declared |= {name: quantity.long_name for name, quantity in quantities.items()}
        assert metric.coordinates(run).keys() <= MEANINGS.keys()
    named = {name: described(name, meaning) for name, meaning in declared.items()}
    named |= {str(name): values.attrs for name, values in group.variables.items()}
    wrong = [
        name
        for name, about in named.items()
        if not 0 < len(about["long_name"].split()) <= WORDS or not about["description"]
    ]
    assert wrong == []
    unit = {name for name, values in group.variables.items() if "units" in values.attrs}
    assert unit == {n for n, values in group.variables.items() if values.dtype.kind not in "UT"}
