"""Silence what diffusers and transformers print while they load; imported first by entry modules."""

import os
import warnings

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "critical")
# diffusers' ControlNet imports a name that diffusers itself deprecates; nothing of ours uses it.
warnings.filterwarnings("ignore", message=".*FluxPosEmbed.*", category=FutureWarning)
# insightface's alignment calls a name that scikit-image deprecates.
warnings.filterwarnings("ignore", message=".estimate. is deprecated", category=FutureWarning)

from diffusers.utils import logging as diffusers_logging  # noqa: E402
from transformers.utils import logging as transformers_logging  # noqa: E402

diffusers_logging.disable_progress_bar()
transformers_logging.disable_progress_bar()
