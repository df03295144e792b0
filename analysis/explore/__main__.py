"""`python -m analysis.explore run.zarr`: see `stepscope.analysis.explore.command`."""

import sys

from stepscope.analysis.explore.command import main

if __name__ == "__main__":
    sys.exit(main())
