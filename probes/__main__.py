"""`python -m probes`: compose a configuration with Hydra and record its run."""

import sys
from typing import Any

import probes.quiet  # noqa: F401  isort: skip  (first: it silences what later imports print)

import hydra
from omegaconf import DictConfig, OmegaConf

from probes.command import command, job
from probes.run import run
from probes.study import Study


@hydra.main(version_base="1.3", config_path="pkg://conf", config_name="config")
def main(config: DictConfig) -> None:
    def work() -> None:
        values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        run(Study.from_config(values))

    job(work)


if __name__ == "__main__":
    sys.exit(command(main))
