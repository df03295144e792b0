"""The process that trains: its command line, its device, its switches, and the others beside it."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

M = TypeVar("M", bound=nn.Module)

MODELS = Path(__file__).parent / "models"
SEED = 20260


@dataclass(frozen=True)
class Options:
    """What a script's command line says."""

    smoke: bool
    seconds: float | None
    slice: float | None
    onward: bool
    album: int
    people: int | None
    checkpoints: Path
    models: Path


def options(description: str | None) -> Options:
    """Parse the command line that all scripts share, and make the process ready to train."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a few tiny steps, seconds on a CPU")
    parser.add_argument("--seconds", type=float, help="the schedule's length, else the script's")
    parser.add_argument("--slice", type=float, help="stop (and keep a checkpoint) after so long")
    parser.add_argument(
        "--continue", dest="onward", action="store_true", help="start from the shipped weights"
    )
    parser.add_argument(
        "--album", type=int, default=0, help="which people are painted: another number, others"
    )
    parser.add_argument(
        "--people", type=int, help="how many are painted for FLUX's stages, else the script's"
    )
    parser.add_argument("--checkpoints", type=Path, default=Path("outputs/pocket"))
    parser.add_argument("--models", type=Path, default=MODELS)
    said = Options(**vars(parser.parse_args()))
    prepare()
    return said


def prepare(seed: int = SEED) -> None:
    """Choose this process's GPU, join the others that torchrun started, seed, and set switches."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        # cuDNN's attention backward fails at head widths of 32 (torch 2.11, H200).
        torch.backends.cuda.enable_cudnn_sdp(False)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        from torch import _dynamo

        # A second text length must not become a dynamic one: inductor's backward breaks on it.
        _dynamo.config.automatic_dynamic_shapes = False  # pyright: ignore[reportAttributeAccessIssue]
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    torch.manual_seed(seed + rank())


def device() -> torch.device:
    """The current GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def rank() -> int:
    """This process's number, 0 when it is alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def autocast() -> torch.autocast:
    """Bfloat16 on CUDA; nothing on a CPU, where it is slow."""
    return torch.autocast(device().type, torch.bfloat16, enabled=device().type == "cuda")


def on_device(module: M) -> M:
    """The module on this process's device, its convolutions in the layout that GPUs like."""
    return cast("M", cast("Any", module).to(device(), memory_format=torch.channels_last))


def compiled(module: nn.Module) -> Any:
    """The module compiled on CUDA, itself on a CPU (the weights are shared either way)."""
    return torch.compile(module) if device().type == "cuda" else module


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Average gradients over processes, in one all_reduce of one flat buffer."""
    if not dist.is_initialized():
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for grad, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def share_weights(parameters: list[nn.Parameter]) -> None:
    """Give every process the weights of process 0."""
    if dist.is_initialized():
        for p in parameters:
            dist.broadcast(p.data, 0)
