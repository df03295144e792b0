"""One edit on one pipeline: the sites that it is made at, and whether a call's steps were touched."""

from collections.abc import Sequence
from typing import Any

import torch

from stepscope.hooks.edits.course import Course
from stepscope.hooks.edits.donor import Donor
from stepscope.hooks.edits.lens import Now, check_tokens
from stepscope.hooks.edits.sites import Sites
from stepscope.hooks.edits.value import Edit
from stepscope.hooks.errors import EditError


class Target:
    """An edit and where it is made; what was touched of it is forgotten when a call begins.

    index: its place in the list that the user gave. sites: names, in order of execution.
    inside: the steps of the call in its window; empty before the first pass.
    """

    def __init__(self, index: int, edit: Edit, sites: Sites, pipe: Any) -> None:
        self.edit, self.which = edit, f"edits[{index}]"
        self.sites = sites.chosen(edit)
        self._of_adapters = frozenset(sites.handed)
        self.inside: frozenset[int] = frozenset()
        self._touched: set[str] = set()
        self._alive: dict[str, torch.Tensor] = {}
        run = edit.operation.run
        self.donor = None if run is None else Donor(run, edit.operation.samples)
        if self.donor is not None:
            self.donor.check_sites(self.sites, edit.branch)
            self.donor.check_model(pipe)

    def forget(self) -> None:
        """A call begins."""
        self.inside = frozenset()
        self._touched.clear()
        self._alive.clear()

    def begin(self, course: Course, batch: int, branches: Sequence[str]) -> None:
        """The first pass of a call begins. Raises EditError for what the call does not have.

        branches: those that may run; of a guidance that is not known beforehand too.
        """
        self.inside = course.inside(self.edit, self.which)
        rows = range(batch) if self.edit.rows is None else self.edit.rows
        missing = [row for row in rows if row >= batch]
        if missing:
            raise EditError(
                f"{self.which}: there is no row {missing[0]} in this call's batch of {batch}; rows 0 to "
                f"{batch - 1} are"
            )
        self.edit.operation.check_rows(rows, batch)
        self.check_branch(branches)
        if self.donor is not None:
            self.donor.check_schedule(course.timesteps)

    def check_branch(self, branches: Sequence[str]) -> None:
        """Raise EditError where the edit's branch is none of those that run."""
        if self.edit.branch is not None and self.edit.branch not in branches:
            raise EditError(
                f"{self.which}: this call has no pass of the branch {self.edit.branch!r}; it runs "
                f"{', '.join(branches)}"
            )

    def check_shape(self, now: Now, site: str, kind: str, stream: torch.Tensor) -> None:
        """Raise EditError where the site's values are not those that the edit is for."""
        count, channels = stream.shape[1:]
        check_tokens(now, self.edit, site, kind, count)
        self.edit.operation.check_shape(site, count, channels)
        if self.donor is not None:
            self.donor.check_shape(site, count, channels, now.tokens.grid)

    def saw(self, site: str, alive: torch.Tensor | None) -> None:
        """The edit was made at a site. alive: of the adapter's, whether any of its values was not 0."""
        self._touched.add(site)
        if alive is not None:
            self._alive[site] = alive | self._alive[site] if site in self._alive else alive

    def check_touches(self, step: int) -> None:
        """Raise EditError when its last step has run and a site was never touched."""
        if not self.inside or step != max(self.inside):
            return
        steps = f"in the steps {min(self.inside)} to {max(self.inside)}"
        for site in self.sites:
            if site not in self._touched:
                why = "the adapter handed nothing over (its window, its scale)"
                if site not in self._of_adapters:
                    why = "no pass of that branch ran, or the site was not run"
                raise EditError(f"{self.which} touched nothing at {site} {steps}: {why}")
        off = [site for site, alive in self._alive.items() if not alive]
        if off:
            raise EditError(
                f"{self.which} touched nothing at {off[0]} {steps}: what the adapter hands over is all "
                "zeros there (its window, its scale)"
            )

    @property
    def reached(self) -> bool:
        """Whether the call ran any step of the window."""
        return bool(self._touched)
