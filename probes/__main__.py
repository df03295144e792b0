"""`stepscope probe`, or `python -m probes`: compose a configuration with Hydra and record its run.

What takes seconds to import is imported where it is needed: help and mistakes are answered before.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from stepscope.probes.usage import answer_help

if __name__ == "__main__":
    answer_help("config")

from stepscope.probes.command import command, entry


def probe(config: Mapping[str, Any]) -> None:
    """Record the run of a configuration `conf/config.yaml`. Raises StepscopeError as `run`."""
    import stepscope.probes.quiet  # noqa: F401  isort: skip  (first: it silences what later imports print)
    from stepscope.probes.study import Study

    study = Study.from_config(config)
    from stepscope.probes.run import run

    run(study)


def probe_all(overrides: Sequence[str]) -> None:
    """Record the runs of a sweep. Ends the process with 2 where one failed."""
    import stepscope.probes.quiet  # noqa: F401
    from stepscope.probes.members import sweep

    sweep(overrides)


main = entry("config", probe, probe_all)

if __name__ == "__main__":
    sys.exit(command(main))
