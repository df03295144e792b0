"""Edits that would touch nothing of a study's run are refused before its models load."""

from collections.abc import Callable, Sequence

from stepscope.hooks.edits import Edit
from stepscope.hooks.edits.course import Course
from stepscope.hooks.edits.donor import Donor
from stepscope.hooks.edits.sites import ADAPTER, IMAGE_PROMPT, Sites
from stepscope.hooks.errors import EditError
from stepscope.probes.adapters import Adapter
from stepscope.probes.adapters.adapter import Part
from stepscope.probes.edits import Wanted
from stepscope.probes.study import Study


def check_fit(
    study: Study,
    sites: Sites,
    sigmas: Sequence[float],
    shape: Callable[[str], tuple[int, int]],
    grid: tuple[int, int],
) -> None:
    """Raise EditError for an edit that would touch nothing of the study's run, or takes what does not fit.

    sites: of the backbone and the adapter, without weights. sigmas: of the run's steps. shape: (token,
    channel) of a site. grid: rows and columns of the image tokens.
    """
    course = Course((), tuple(sigmas))
    for index, wanted in enumerate(study.edits):
        which, one = f"edits[{index}]", wanted.edit()
        chosen = sites.chosen(one)
        inside = course.inside(one, which)
        branches = ("positive", "negative")[: study.branches]
        if one.branch is not None and one.branch not in branches:
            told = "" if study.branches == 2 else "; true_cfg above 1 adds the negative one"
            raise EditError(
                f"{which}: the run has no branch {one.branch!r}, it has {', '.join(branches)}{told}"
            )
        part = part_of(study, sites, chosen)
        if study.adapter is not None and part is not None:
            _check_adapter_on(study.adapter, part, which, one, inside, sigmas)
        run = one.operation.run
        if run is not None:
            donor = Donor(run, one.operation.samples)
            donor.check_sites(chosen, one.branch)
            donor.check_schedule(sigmas, "sigma")
            for site in chosen:
                donor.check_shape(site, *shape(site), grid)


def part_of(study: Study, sites: Sites, chosen: Sequence[str]) -> Part | None:
    """The part of the one adapter that adds at some sites; None where others add there, or nobody."""
    if study.adapter is None:
        return None
    if any(site.endswith(f".{ADAPTER}") for site in chosen):
        return study.adapter.handing
    added = all(site in sites.handed or site.endswith(f".{IMAGE_PROMPT}") for site in chosen)
    return study.adapter.parts[0] if added and not study.beside else None


def _check_adapter_on(
    adapter: Adapter,
    part: Part,
    which: str,
    one: Edit,
    inside: frozenset[int],
    sigmas: Sequence[float],
) -> None:
    on = part.steps(sigmas)
    if one.branch == "negative" and not adapter.IN_NEGATIVE:
        raise EditError(
            f"{which} would touch nothing: {adapter.name} does not run in the negative pass, as in "
            "InfiniteYou"
        )
    if not inside & {*on}:
        steps = f"{min(inside)} to {max(inside)}"
        told = f"in steps {on[0]} to {on[-1]}" if on else "in no step"
        raise EditError(
            f"{which} would touch nothing in steps {steps}: the adapter is on {told} "
            f"(adapter.{part.key}scale={part.scale}, adapter.{part.key}window={list(part.window)})"
        )


def check_rows(edits: Sequence[Wanted], samples: int, batch_size: int) -> None:
    """Raise EditError where a batch of the run lacks a row that an edit names."""
    sizes = {min(batch_size, samples), samples % batch_size or batch_size}
    for index, wanted in enumerate(edits):
        one, size = wanted.edit(), min(sizes)
        rows = range(size) if one.rows is None else one.rows
        if max(rows) >= size:
            raise EditError(
                f"edits[{index}]: there is no row {max(rows)} in a batch of {size} ({samples} samples, "
                f"batch_size={batch_size})"
            )
        for each in sizes:
            one.operation.check_rows(range(each) if one.rows is None else one.rows, each)
