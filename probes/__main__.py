"""`python -m probes`: compose a configuration with Hydra and record its run."""

import sys

from stepscope.probes.usage import answer_help

if __name__ == "__main__":
    answer_help("config")

import stepscope.probes.quiet  # noqa: F401  isort: skip  (first: it silences what later imports print)

from stepscope.probes.command import command, entry
from stepscope.probes.members import sweep
from stepscope.probes.run import run
from stepscope.probes.study import Study

main = entry("config", lambda values: run(Study.from_config(values)), sweep)

if __name__ == "__main__":
    sys.exit(command(main))
