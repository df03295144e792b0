"""What a run needs and what is here: models, memory, faces as they are found, shapes and the device."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.layout import Layout
from stepscope.probes import grid
from stepscope.probes.adapters import Adapter
from stepscope.probes.control import load_control
from stepscope.probes.devices import pick_device
from stepscope.probes.faces import is_embedding
from stepscope.probes.found import described, doubt
from stepscope.probes.needed import Need, needs
from stepscope.probes.pictures import read_picture
from stepscope.probes.plan import latent_shape, spoken_bytes
from stepscope.probes.study import Study

Say = Callable[[str], None]


def model_lines(wanted: Sequence[Need]) -> list[str]:
    """The table of a study's models: each with its size, and what gets it where it is not here."""
    width = max(len(need.place) for need in wanted)
    lines = ["models"]
    for need in wanted:
        size = "" if need.size is None else spoken_bytes(need.size)
        state = f"not here: {need.cure}" if need.cure else "here"
        lines.append(f"  {need.role:<10}{need.place:<{width}}  {size:>9}  {state}")
    return lines


def preflight(
    study: Study, found: Layout, files: Mapping[str, Path], samples: int, say: Say
) -> None:
    """Look, before anything is loaded, at all that a run would meet. Says what it finds.

    Raises one StepscopeError with all that is missing or cannot be used.
    """
    wanted = needs(study)
    wrong = [f"no {need.role} {need.place}" for need in wanted if need.cure]
    device = ""
    try:
        device = pick_device(study.device)
    except StepscopeError as error:
        wrong.append(str(error))
    if device:
        line, fits = memory_line(wanted, device)
        say(line)
        wrong += [] if fits else ["the weights do not fit into memory"]
    for adapter in study.adapters.values():
        wrong += look_at_files(study, adapter, files, wanted, say)
    if study.initial_latents is not None:
        try:
            grid.read_latents(study.initial_latents, latent_shape(found), samples)
        except StepscopeError as error:
            wrong.append(str(error))
    if wrong:
        raise StepscopeError(f"not ready: {'; '.join(wrong)}")
    say("ready: the same command without --dry makes it")


def look_at_files(
    study: Study, adapter: Adapter, files: Mapping[str, Path], wanted: Sequence[Need], say: Say
) -> list[str]:
    """Say how each face is found, or that a picture is there; what is wrong.

    Faces are not looked for where the detector is missing.
    """
    reader, finder = adapter.reader("cpu"), adapter.finder("cpu")
    if reader is None:
        return []
    wrong, width = [], max(map(len, files), default=0)
    detector = not any(need.role.endswith("detector") and need.cure for need in wanted)
    weights = not any(need.role.endswith("adapter") and need.cure for need in wanted)
    say("faces" if adapter.reads == "face" else "pictures")
    for name, path in files.items():
        try:
            if is_embedding(path):
                if not weights:
                    say(f"  {name:<{width}}  an embedding; not looked at, the adapter is not here")
                    continue
                where = reader.read(name, path).found
            else:
                picture = read_picture(path, adapter.reads or "face")
                if finder is None:
                    say(f"  {name:<{width}}  {picture.width} x {picture.height} pixels")
                    continue
                if not detector:
                    say(f"  {name:<{width}}  a picture; not looked at, there is no detector")
                    continue
                where = finder.find(np.asarray(picture)[:, :, ::-1].copy(), str(path))[1]
        except StepscopeError as error:
            say(f"  {name:<{width}}  {error}")
            wrong.append(f"{adapter.reads} {name}")
            continue
        doubtful = doubt(study, where)
        say(f"  {name:<{width}}  {described(where)}" + (f"  <- {doubtful}" if doubtful else ""))
    if study.control_image is not None and finder is not None and detector:
        size = study.width, study.height
        try:
            load_control(study.control_image, study.control_image_kind, size, finder)
        except StepscopeError as error:
            wrong.append(str(error))
    return wrong


def memory_line(wanted: Sequence[Need], device: str) -> tuple[str, bool]:
    """The memory that weights take of what the device has free, and whether they fit."""
    known = [need.size for need in wanted if need.held and need.size is not None]
    free, what = free_memory(device)
    partly = "" if len(known) == sum(need.held for need in wanted) else " at least"
    fits = free is None or sum(known) <= free
    room = "" if free is None else f", {spoken_bytes(free)} free here"
    bad = "" if fits else ": will not fit, name backbone.dtype=bfloat16 or a larger device"
    return f"memory    weights take{partly} {spoken_bytes(sum(known))} on {what}{room}{bad}", fits


def free_memory(device: str) -> tuple[float | None, str]:
    """Bytes that are free on a device, None where nobody says, and its name."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        return float(free), f"{device} ({torch.cuda.get_device_name(device)})"
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024, device
        return None, device
    except OSError:
        try:
            return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")), device
        except (ValueError, OSError, AttributeError):
            return None, device
