"""`python -m stepscope.analysis.planted`, or `python -m analysis.planted` in a checkout."""

import sys

from stepscope.probes.usage import answer_help

if __name__ == "__main__":
    answer_help("planted")

import stepscope.probes.quiet  # noqa: F401  isort: skip  (first: it silences what later imports print)

from stepscope.analysis.planted.benchmark import main
from stepscope.probes.command import command

if __name__ == "__main__":
    sys.exit(command(main))
