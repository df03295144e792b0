"""Which pipelines can be recorded truthfully, and why each other one cannot.

Asked before anything is run, when recording begins and again at each call: what makes numbers false may
come in between.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from stepscope.hooks.clock import NETWORKS, controlnet_of, denoiser_of
from stepscope.hooks.compiled import check_seen, is_compiled
from stepscope.hooks.errors import UnsupportedPipelineError
from stepscope.hooks.estimate import SCHEDULERS, refusal
from stepscope.hooks.families import PIPELINES, Branches, Family, Pass, blocks_of, family_of
from stepscope.hooks.laid import unwrapped
from stepscope.hooks.norm_buffer import Place
from stepscope.hooks.patch import is_laid

# Hooks of diffusers (diffusers/hooks/*.py) under which a block still computes what it returns.
_HARMLESS = (
    "layerwise_casting",
    "peft_autocast_disable",
    "group_offloading",
    "layer_execution_tracker",
    "lazy_prefetch_group_offloading",
)


def refuse(pipe: Any) -> None:
    """Raise UnsupportedPipelineError, with the cause, for a pipeline whose record would not be true."""
    try:
        _refuse(pipe)
    except UnsupportedPipelineError as error:
        name = type(pipe).__name__
        told = str(error)
        raise UnsupportedPipelineError(
            told if name in told else f"cannot record {name}: {told}"
        ) from error


def check_edit(pipe: Any) -> None:
    """As `refuse`: where it is not known what is what, nothing can be edited by name."""
    try:
        refuse(pipe)
    except UnsupportedPipelineError as error:
        told = str(error).replace("cannot record", "cannot edit", 1)
        raise UnsupportedPipelineError(told) from error


def _refuse(pipe: Any) -> None:
    denoiser = denoiser_of(pipe)
    networks = {part: unwrapped(getattr(pipe, part, None)) for part in NETWORKS}
    networks = {part: model for part, model in networks.items() if isinstance(model, nn.Module)}
    family = family_of(denoiser)
    if not blocks_of(denoiser):
        raise UnsupportedPipelineError(
            f"its {type(denoiser).__name__} has no transformer blocks (BasicTransformerBlock) to read"
        )
    branches_of(pipe, family)
    _check_network(pipe)
    for part, model in networks.items():
        _check_not_parallel(part, model)
        _check_no_cache(part, model)
    if not isinstance(pipe.scheduler, tuple(SCHEDULERS)):
        raise UnsupportedPipelineError(refusal(pipe.scheduler))


def branches_of(pipe: Any, family: Family) -> Branches:
    """What the passes of a pipeline's denoising loop are, by the class that defines its `__call__`.

    Raises UnsupportedPipelineError for a loop that is not known.
    """
    # the object may have a subclass of ours (hooks.patch.of_class), which is no loop of its own
    loops = [k for k in type(pipe).__mro__ if "__call__" in vars(k) and not is_laid(k)]
    name = loops[0].__name__ if loops else type(pipe).__name__
    of_diffusers = bool(loops) and loops[0].__module__.startswith("diffusers.")
    if name in family.refused:
        raise UnsupportedPipelineError(f"cannot record {name}: {family.refused[name]}")
    if loops and loops[0] in PIPELINES:
        return PIPELINES[loops[0]]
    if not of_diffusers or name not in family.pipelines:
        raise UnsupportedPipelineError(
            f"cannot record {type(pipe).__name__}: it has a denoising loop of its own "
            f"({name}.__call__), and stepscope does not know which branch each denoiser pass computes. "
            "stepscope.register_pipeline names the branches"
        )
    return family.pipelines[name]


def parts_of(
    pipe: Any,
    branches: Branches,
    arguments: Mapping[str, Any],
    place: Place,
    rows: int,
    batch: int,
) -> tuple[str, ...]:
    """The branches of a pass with so many rows, in the order of its batch.

    Raises UnsupportedPipelineError where they are not known.
    """
    step, nth = place
    names = None
    if rows % batch == 0:
        names = branches(Pass(pipe, arguments, nth, rows // batch))
    if names is None:
        raise UnsupportedPipelineError(
            f"pass {nth + 1} of step {step} of {type(pipe).__name__} has {rows} samples "
            f"for {batch} latents: stepscope does not know which samples belong to which branch"
        )
    return names


def _check_network(pipe: Any) -> None:
    network = controlnet_of(pipe)
    if network is None:
        return
    if hasattr(network, "nets"):
        raise UnsupportedPipelineError(
            f"what each network of its {type(network).__name__} adds cannot be separated. Give the "
            "pipeline one ControlNet"
        )
    family_of(network)


def check_compiled(pipe: Any) -> None:
    """Raise UnsupportedPipelineError where a hook of ours is inside a graph that would not run it."""
    for part in NETWORKS:
        model = getattr(pipe, part, None)
        if isinstance(model, nn.Module):
            check_seen(unwrapped(model), wrapped=unwrapped(model) is not model)


def check_not_compiled(pipe: Any) -> None:
    """Raise UnsupportedPipelineError for a pipeline with a compiled network: plain hooks inside of it may
    not run, for Dynamo guards no hooks (`skip_nnmodule_hook_guards`)."""
    for part in NETWORKS:
        model = getattr(pipe, part, None)
        for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
            if is_compiled(module):
                where = f"{part}.{name}" if name else part
                raise UnsupportedPipelineError(
                    f"pipe.{where} is compiled, and hooks inside a compiled network may not run: verify "
                    "the pipeline before you compile it"
                )


def _check_not_parallel(part: str, model: nn.Module) -> None:
    if getattr(model, "_parallel_config", None) is not None:
        raise UnsupportedPipelineError(
            f"pipe.{part} runs in parallel (enable_parallelism): each process has a part of the tokens "
            "or channels, so norms over all of them cannot be computed"
        )


def _check_no_cache(part: str, model: nn.Module) -> None:
    for name, module in model.named_modules():
        registry = getattr(module, "_diffusers_hook", None)
        found = [h for h in getattr(registry, "hooks", {}) if h not in _HARMLESS]
        if found:
            where = f"{part}.{name}" if name else part
            raise UnsupportedPipelineError(
                f"pipe.{where} has diffusers' hook {found[0]!r}: with it, blocks return values of "
                f"earlier steps or are skipped, and these would be recorded as if computed. "
                f"pipe.{part}.disable_cache() turns a cache off"
            )
