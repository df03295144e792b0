"""Every pipeline class of diffusers that runs a FLUX transformer or a U-Net, as a tiny random pipeline.

The classes are taken from diffusers' source: those whose `__init__` annotates a parameter with
`UNet2DConditionModel` or `FluxTransformer2DModel`. `build` makes one from tests/every_pipeline_parts.py.
"""

import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
from diffusers import DiffusionPipeline

from tests.every_pipeline_parts import part

PIPELINES = Path(inspect.getfile(diffusers)).parent / "pipelines"
DENOISERS = re.compile(r"\b(UNet2DConditionModel|FluxTransformer2DModel)\b")


@cache
def modules() -> dict[str, str]:
    """Class name -> module, of every class that runs one of `DENOISERS`; read without importing any."""
    found: dict[str, str] = {}
    for file in sorted(PIPELINES.rglob("*.py")):
        module = ".".join(("diffusers.pipelines", *file.relative_to(PIPELINES).parts))
        for definition in re.split(r"^class ", file.read_text(), flags=re.M)[1:]:
            made_of = re.search(r"^    def __init__\((.*?)\)( -> None)?:$", definition, re.M | re.S)
            if made_of and DENOISERS.search(made_of[1]):
                name = re.split(r"\W", definition, maxsplit=1)[0]
                if "Pipeline" in name:
                    found[name] = module.removesuffix(".py")
    return found


def pipeline_class(name: str) -> type[DiffusionPipeline]:
    return getattr(importlib.import_module(modules()[name]), name)


def build(name: str, **given: Any) -> Any:
    """The pipeline of that class out of tiny components; those in `given` take their place."""
    components = {}
    for parameter in inspect.signature(pipeline_class(name).__init__).parameters.values():
        asked = _written(parameter.annotation)
        if parameter.name in given:
            components[parameter.name] = given[parameter.name]
        elif parameter.name == "requires_safety_checker":
            components[parameter.name] = False
        elif parameter.name == "safety_checker":
            components[parameter.name] = None
        elif parameter.name != "self" and not _is_setting(asked):
            components[parameter.name] = part(name, asked)
    pipe = pipeline_class(name)(**components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _written(annotation: Any) -> str:
    """An annotation without its modules: `ControlNetModel | list[ControlNetModel]`."""
    whole = annotation.__name__ if inspect.isclass(annotation) else str(annotation)
    return re.sub(r"\b[a-z_]\w*(\.\w+)*\.", "", whole)


def _is_setting(asked: str) -> bool:
    return re.fullmatch(r"(bool|int|float|str|list|dict)\b.*", asked) is not None


if __name__ == "__main__":
    from tests.every_pipeline_table import main

    main()
