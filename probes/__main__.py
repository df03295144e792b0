"""`python -m probes`: compose a configuration with Hydra and record its run."""

import sys

import probes.quiet  # noqa: F401  isort: skip  (first: it silences what later imports print)

from probes.command import command, entry
from probes.run import run
from probes.study import Study

main = entry("config", lambda values: run(Study.from_config(values)))

if __name__ == "__main__":
    sys.exit(command(main))
