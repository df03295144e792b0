"""`python -m analysis runs=[runs/a.zarr]`: measure runs, each metric into the run's `analysis` group.

    python -m analysis 'runs=[runs/*.zarr]'                          what figures need
    python -m analysis runs=[a.zarr] metrics=[arcface_final]         identity of the final images alone
    python -m analysis runs=[own.zarr] references=[ada.jpg] recognisers=[buffalo_l]     of your own pipeline
    python -m analysis runs=[a.zarr] recognisers=[antelopev2,buffalo_l,models/ir_se50.pth]

What was measured with the same inputs is left as it is; interrupted, the same command continues.
The figures, tables and the report are drawn by `python -m analysis.paper`.
"""

import glob
import sys
from collections.abc import Mapping
from typing import Any

import stepscope.probes.quiet  # noqa: F401  isort: skip  (first: it silences what later imports print)

from stepscope.analysis.measure import Settings, measure_all
from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.paths import local_path
from stepscope.probes.command import command, entry

SHELL = "*?["
USUAL = ("decode", "arcface", "sharpness", "latency")
"""What is measured where no metric is named, as far as a run has what each needs."""


def analyse(config: Mapping[str, Any]) -> None:
    """Do what the configuration `conf/analysis.yaml` says. Raises StepscopeError as `measure_all`."""
    values = dict(config)
    named, chosen = ([v] if isinstance(v, str) else v for v in map(values.pop, ("runs", "metrics")))
    metrics = list(USUAL) if chosen is None else chosen
    if not named:
        raise StepscopeError("runs is not set: name runs=[...], or a pattern runs=runs/*.zarr")
    runs: list[str] = []
    if values.get("many_step") is not None:
        values["many_step"] = str(local_path(values["many_step"], "many_step"))
    for name in named:
        path = str(local_path(name, "runs"))
        found = sorted(glob.glob(path)) if any(sign in path for sign in SHELL) else [path]
        if not found:
            raise StepscopeError(f"runs: nothing matches {name!r}")
        runs += found
    done = measure_all(runs, metrics, Settings(**values), print, leave_out=chosen is None)
    lost = [name for name in metrics if name not in done]
    without = f"; not all of them by {', '.join(lost)}, see above" if lost else ""
    print(f"{len(runs)} runs are measured by {', '.join(done) or 'nothing'}{without}")


main = entry("analysis", analyse)

if __name__ == "__main__":
    sys.exit(command(main))
