"""The explorer in a real browser, by clicks and keys: what is shown is what the run holds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest
import xarray as xr

from stepscope.analysis.explore.save import save
from stepscope.analysis.explore.source import Source
from tests.browser import chromium, opened
from tests.exploring import many, served

CONTROLS = tuple(
    f"- {role}"
    for role in (
        "application", "button", "checkbox", "combobox", "listbox", "radio", "searchbox", "slider",
        "spinbutton",
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def page_file(measured_pocket: Path, pocket_run: Path, tmp_path_factory) -> Path:
    """Two runs in one page: measured, and not."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    save([Source(str(measured_pocket)), Source(str(pocket_run))], path)
    return path


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> Path:
    """A run with norms of single tokens."""
    from stepscope.analysis.commands import composed
    from stepscope.probes.run import run
    from stepscope.probes.study import Study

    path = tmp_path_factory.mktemp("tokens") / "run.zarr"
    words = ["backbone=pocket_schnell", "adapter=none", "prompts=[portrait photo]", "steps=2"]
    words += ["record=tokens", f"out={path}"]
    run(Study.from_config(composed(words)), say=lambda text: None)
    return path


def cell(page: Any, place: int = 0) -> tuple[str, float]:
    """What is said of the chosen cell: the text, and the value that its Python gives."""
    names: dict[str, Any] = {}
    opening, line = page.locator("#maps pre").nth(place).inner_text().split("\n", 1)
    exec("import xarray as xr", names)
    exec(opening, names)
    return page.locator(f"#value{place}").inner_text(), eval(line, names).item()


def click_cell(page: Any, block: int, step: int, blocks: int, steps: int, place: int = 0) -> None:
    box = (
        page.locator("#maps .plot").nth(place).locator(".plotbg, .bglayer .bg").first.bounding_box()
    )
    page.mouse.click(
        box["x"] + box["width"] * (step + 0.5) / steps,
        box["y"] + box["height"] * (block + 0.5) / blocks,
    )


def settled(page: Any, text: str = "; sample 0 of") -> None:
    """Wait until the chosen cell of the first run is said, with this text in it."""
    page.locator("#value0", has_text=text).wait_for()


def test_a_click_lights_a_cell_and_its_python_gives_the_value(
    browser: Any, measured_pocket: Path
) -> None:
    run = xr.open_zarr(measured_pocket)
    with (
        served(measured_pocket) as address,
        opened(browser, address, viewport={"width": 1280, "height": 1700}) as page,
    ):
        settled(page)
        click_cell(page, 5, 2, run.sizes["block"], run.sizes["step"])
        settled(page, "single.01")
        text, value = cell(page)
        wanted = run.attention_norm.sel(block="single.01", stream="image", branch="positive")
        assert value == wanted.isel(sample=0, step=2).item()
        assert f"attention_norm is {value:.6g} at single.01.attention.image, step 2" in text
        page.get_by_label("Variable").select_option("residual_norm")
        page.get_by_label("stream").select_option("text")
        settled(page, ".residual.text")
        text, value = cell(page)
        assert f"residual_norm is {value:.6g} at single.01.residual.text" in text


def test_arrows_change_step_block_and_sample(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file.as_uri()) as page:
        settled(page)
        first = page.locator("#pictures img").first.get_attribute("src")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert "step=2" in page.evaluate("location.hash")
        assert page.get_by_role("slider", name="Step").get_attribute("aria-valuetext") == (
            "step 2, sigma 0.5"
        )
        assert page.locator("#pictures img").first.get_attribute("src") != first
        assert page.locator("#now0 td").nth(1).inner_text() != ""
        page.locator("#maps .plot").first.focus()
        page.keyboard.press("ArrowDown")
        assert "block=double.01" in page.evaluate("location.hash")
        page.keyboard.press("Shift+ArrowDown")
        settled(page, "; sample 1 of")
        assert "sample2=1" in page.evaluate("location.hash")  # the same face, prompt and seed
        page.keyboard.press("Home")
        assert "step=0" in page.evaluate("location.hash")


def test_curves_say_what_was_measured_at_the_mark(browser: Any, measured_pocket: Path) -> None:
    found = xr.open_zarr(measured_pocket, group="analysis")
    with served(measured_pocket) as address, opened(browser, f"{address}#step=3") as page:
        settled(page)
        rows = page.locator("#now0 tr").all_inner_texts()[1:]
        told = {name: float(value) for name, value in (row.split("\t") for row in rows)}
        for recogniser in found.recogniser.values:
            for alignment in found.alignment.values:
                place = {"recogniser": recogniser, "alignment": alignment}
                value = found.similarity.sel(place).isel(sample=0, step=3).item()
                np.testing.assert_allclose(told[f"{recogniser}, {alignment}"], value, rtol=1e-5)


def test_a_link_restores_the_view(browser: Any, page_file: Path) -> None:
    link = (
        "#sample=1&sample2=0&step=1&variable=contribution&block=single.03.image.controlnet&axis=sigma&log=0"
        "&curve=sharpness&measure=tenengrad"
    )
    with opened(browser, page_file.as_uri() + link) as page:
        settled(page, "; sample 1 of")
        kept = dict(parse_qsl(page.evaluate("location.hash.slice(1)")))
        wanted = dict(parse_qsl(link[1:]))
        assert wanted.items() <= kept.items()
        assert page.locator("#value0").inner_text().startswith("contribution is ")
        assert not page.get_by_label("logarithmic colours").is_checked()
        assert page.get_by_role("radio", name="sigma").is_checked()
        assert page.locator("#measure0").input_value() == "tenengrad"


def test_runs_stand_beside_each_other_at_equal_sigma(
    browser: Any, measured_pocket: Path, tokens: Path
) -> None:
    """Four steps and two: of the sigmas 1, 0.75, 0.5, 0.25 the nearest of 1, 0.5."""
    with served(measured_pocket, tokens) as address, opened(browser, f"{address}#step=2") as page:
        settled(page)
        second = page.locator("#pictures figcaption").nth(1)
        assert "step 1, its last, sigma 0.5" in second.inner_text()
        page.get_by_role("radio", name="sigma").check()
        assert "step 1, sigma 0.5" in second.inner_text()
        page.keyboard.press("Home")
        page.get_by_role("slider", name="Step").fill("0")
        assert "step 0, sigma 1" in second.inner_text()


def test_a_token_is_read_over_the_picture(browser: Any, tokens: Path) -> None:
    run = xr.open_zarr(tokens)
    with served(tokens) as address, opened(browser, f"{address}#step=1&block=single.02") as page:
        settled(page)
        page.get_by_label("Over the picture").select_option("residual_token_norm")
        map_of_tokens = page.get_by_role("application", name="residual_token_norm")
        map_of_tokens.wait_for()
        map_of_tokens.press("ArrowDown")
        map_of_tokens.press("ArrowRight")
        text = page.locator("#token0").inner_text()
        value = run.residual_token_norm.sel(block="single.02").isel(sample=0, step=1, branch=0)[
            1, 1
        ]
        assert f"is {value.item():.6g} at token row 1, column 1" in text
        names: dict[str, Any] = {}
        exec("import xarray as xr\n" + text.split("\n", 1)[1].strip().rsplit("\n", 1)[0], names)
        assert eval(text.strip().rsplit("\n", 1)[1], names).item() == value.item()


def test_what_was_not_measured_says_the_command(browser: Any, pocket_run: Path) -> None:
    with served(pocket_run) as address, opened(browser, address) as page:
        settled(page)
        assert f"stepscope measure {pocket_run}" in page.locator("#unmeasured").inner_text()
        assert "colours approximate" in page.locator("figcaption").inner_text()


def test_ten_thousand_samples_are_searched_and_few_are_listed(browser: Any, tmp_path: Path) -> None:
    with served(many(tmp_path / "run.zarr", 10_000)) as address, opened(browser, address) as page:
        settled_list = page.locator("#sample option")
        settled_list.first.wait_for(state="attached")
        assert settled_list.count() <= 200
        page.get_by_label("Find by face").fill("seed 9999")
        assert settled_list.all_inner_texts() == [
            "9999 · not finished · face_08 · seed 9999 · portrait number 35"
        ]
        page.get_by_label("Sample", exact=True).select_option("9999")
        page.get_by_text("This sample is not finished: nothing of it is in the run yet.").wait_for()
        assert page.locator("*").count() < 600


def test_a_damaged_sample_is_said_and_the_next_is_shown(browser: Any, tmp_path: Path) -> None:
    path = many(tmp_path / "run.zarr", 3, damaged=True)
    with served(path) as address, opened(browser, address) as page:
        page.get_by_role("alert").filter(
            has_text="this part of the run cannot be read now"
        ).wait_for()
        page.get_by_label("Sample", exact=True).select_option("1")
        page.get_by_role("alert").wait_for(state="hidden")
        assert "step 0" in page.locator("figcaption").inner_text()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_in_light_and_dark(
    browser: Any, page_file: Path, width: int, scheme: str
) -> None:
    look = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme}
    with opened(browser, page_file.as_uri(), **look) as page:
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert (
            page.locator("#chosen").inner_text() == "0 · 00_0 · seed 0 · portrait photo of a person"
        )
        assert page.locator("#chosen").evaluate("e => e.scrollWidth <= e.clientWidth")
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (colour == "rgb(255, 255, 255)") == (scheme == "light")


def test_every_control_has_a_name(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file.as_uri()) as page:
        settled(page)
        heard = page.locator("body").aria_snapshot().splitlines()
        controls = [line.strip() for line in heard if line.strip().startswith(CONTROLS)]
        assert [line for line in controls if '"' not in line.split(":")[0]] == []
        assert len(controls) > 10
        assert any(
            line.startswith('- application "attention_norm of measured.zarr') for line in controls
        )
