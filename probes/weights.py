"""Where weights come from, what identifies them, and what to do when they are missing."""

import errno
import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub import errors as hub
from huggingface_hub import hf_hub_download, snapshot_download
from safetensors import safe_open
from torch import nn

from stepscope.hooks.errors import StepscopeError
from stepscope.probes.places import located
from stepscope.probes.shortage import memory

WEIGHT_FILES = (".safetensors", ".bin", ".pth", ".pt", ".onnx")
SETTING_FILES = (".json", ".txt", ".model")  # what else decides: schedule, sizes, tokenizers


class WeightsError(StepscopeError):
    """Weights that are missing, gated or unreadable."""


@contextmanager
def explained(path: str, what: str) -> Iterator[None]:
    """Turn what loading raises into one line: what to accept, log in to, download, or what is damaged."""
    try:
        yield
    except StepscopeError:
        raise
    except Exception as error:  # safetensors, tokenizers and onnxruntime have classes of their own
        # diffusers raises its own error from the hub's
        told = _by_the_hub(error, path) or _by_the_hub(error.__cause__, path)
        if told is None and (memory(error) or _of_the_system(error)):
            raise
        told = told or _of_the_file(error)
        told = told or f"cannot be read: {first_line(error)}"
        raise WeightsError(f"{what} {path!r} {told}") from error


def _of_the_file(error: Exception) -> str | None:
    """What is wrong with a file of weights, where its library's words do not tell a user."""
    if isinstance(error, UnpicklingError) or (
        isinstance(error, KeyError) and not isinstance(error.args[0], str)
    ):  # torch would have the user load it unsafely, or stumbles over its bytes
        return "cannot be read: it is no file of weights, or holds more than weights"
    if isinstance(error, EOFError) or (isinstance(error, OSError) and error.errno == errno.EINVAL):
        return "cannot be read: it is empty, or cut short"
    return f"lacks {error.args[0]}" if isinstance(error, KeyError) else None


def _of_the_system(error: Exception) -> bool:
    """Whether the system refused a file, and not a library what is in it."""
    if not isinstance(error, OSError) or error.errno is None:
        return False
    return error.filename is not None or error.errno == errno.ENOSPC


def _by_the_hub(error: BaseException | None, path: str) -> str | None:
    """How to fix an error of the hub; None for any other error."""
    if isinstance(error, hub.GatedRepoError):
        page = f"its page on the hub ({path})"
        return f"is gated: accept its licence on {page}, then `hf auth login`"
    if isinstance(error, hub.RepositoryNotFoundError):
        return (
            "is neither a local folder nor a public model of the hub; a private or gated one needs a "
            "token: `hf auth login`"
        )
    if isinstance(error, (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled)):
        return (
            "is not on this machine and the hub was not reached: download it with "
            f"{download_words(path)} where there is a network, or name a local one"
        )
    return None


def download_words(place: str) -> str:
    """The command that downloads `OWNER/NAME`, or a file or folder of it."""
    parts = Path(place).parts
    repository, inside = "/".join(parts[:2]), "/".join(parts[2:])
    if not inside:
        return f"`hf download {repository}`"
    inside = inside if Path(inside).suffix in WEIGHT_FILES else f"--include '{inside}/*'"
    return f"`hf download {repository} {inside}`"


def check_complete(model: nn.Module) -> None:
    """Raise ValueError for parameters that no file had: diffusers leaves them without values."""
    lost = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise ValueError(f"{type(model).__name__} lacks {lost[0]}{more}")


def meta(kind: Any, path: Path) -> Any:
    """A network of a diffusers class from the configuration in a folder, without weights."""
    with torch.device("meta"):
        return kind.from_config(kind.load_config(path))


def first_line(error: BaseException) -> str:
    """What an error says first, and under a heading second; its class where it says nothing."""
    said = str(error).partition(" If you want to instead overwrite")[0]  # diffusers' advice
    lines = [line.strip() for line in said.strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def local_folder(path: str, what: str) -> Path | None:
    """The folder, None where `path` is a hub id. Raises WeightsError for what is neither."""
    local = located(path)
    if local.is_dir():
        return local
    if local.is_file() or local.is_absolute() or path.startswith(".") or len(local.parts) != 2:
        raise WeightsError(_not_there(what, "folder", path))
    return None


def _not_there(what: str, kind: str, path: str) -> str:
    """That a place holds no `kind`, a folder or a file; or that it holds the other one."""
    local = located(path)
    if local.exists():
        other = (
            "a file, and a folder is wanted"
            if local.is_file()
            else "a folder, and a file is wanted"
        )
        return f"{what}: no {kind} {path!r}: it is {other}"
    return f"{what}: no {kind} {path!r}"


def on_hub(place: str) -> bool:
    """Whether a place reads as a hub id, `OWNER/NAME`, or as what lies in one."""
    local = located(place)
    away = not local.exists() and not local.is_absolute()
    return away and not place.startswith(".") and len(local.parts) >= 2


def parameters(file: Path) -> int:
    """How many numbers a file of weights holds: by its header, or by four bytes for each.

    Raises WeightsError for a damaged header.
    """
    if file.suffix != ".safetensors":
        return file.stat().st_size // 4
    with explained(str(file), "weights"), safe_open(file, "pt") as opened:
        return sum(prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118


def is_file(path: str) -> bool:
    """Whether a place is a single file of weights."""
    return path.endswith((".safetensors", ".ckpt", ".pt")) or located(path).is_file()


def folder(path: str, what: str, patterns: list[str], *, download: bool = True) -> Path:
    """A local folder as it is, or the snapshot of a hub repository with the files of these patterns.

    Raises WeightsError with what to do if it is not there (nor to be downloaded), or gated.
    """
    local = local_folder(path, what)
    if local is not None:
        return local
    with explained(path, what):
        return Path(snapshot_download(path, allow_patterns=patterns, local_files_only=not download))


def file(place: str, what: str, *, download: bool = True) -> Path:
    """A local file, or one of a hub repository: `OWNER/NAME/FOLDER/FILE`. Raises WeightsError."""
    local = located(place)
    if local.is_file():
        return local
    repository, inside = _hub_parts(place)
    if not inside:
        raise WeightsError(_not_there(what, "file", place))
    with explained(place, what):
        return Path(hf_hub_download(repository, inside, local_files_only=not download))


def subfolder(place: str, what: str, *, download: bool = True) -> Path:
    """A local folder, or `OWNER/NAME` or `OWNER/NAME/FOLDER` of the hub. Raises WeightsError."""
    local = located(place)
    if local.is_dir():
        return local
    repository, inside = _hub_parts(place)
    if not repository:
        raise WeightsError(_not_there(what, "folder", place))
    patterns = [f"{inside}/*"] if inside else None
    with explained(place, what):
        root = snapshot_download(repository, allow_patterns=patterns, local_files_only=not download)
    return Path(root) / inside


def _hub_parts(place: str) -> tuple[str, str]:
    """`OWNER/NAME` and the path inside of a place of the hub; empty where it cannot be one."""
    parts = Path(place).parts
    if located(place).is_absolute() or place.startswith(".") or len(parts) < 2:
        return "", ""
    return "/".join(parts[:2]), "/".join(parts[2:])


def check_same_layout(path: Path, what: str, parts: Sequence[str], kind: str = "FLUX") -> None:
    """Raise WeightsError for a folder that lacks one of the folders which a pipeline has in it."""
    lost = [part for part in parts if not (path / part).is_dir()]
    if lost:
        raise WeightsError(
            f"{what}: no {lost[0]}/ in {str(path)!r}: name a {kind} folder in diffusers' layout"
        )


def pack_folder(name: str, root: str) -> Path | None:
    """Where an insightface pack's `.onnx` files lie: `name`, or `<root>/models/<name>`, or None."""
    places = (located(name), located(root) / "models" / name)
    return next((place for place in places if any(place.glob("*.onnx"))), None)


def weight_files(path: str | Path, kinds: tuple[str, ...] = WEIGHT_FILES) -> dict[str, Path]:
    """Every weight file of a folder (or the file itself) by its path within."""
    path = located(path)
    if path.is_file():
        return {path.name: path}
    # pathlib does not enter linked folders, and a distilled backbone may link to what it shares
    inside = (Path(f) for f in glob.glob(f"{glob.escape(str(path))}/**", recursive=True))
    found = (f for f in sorted(inside) if f.suffix in kinds and f.is_file())
    return {f.relative_to(path).as_posix(): f for f in found}
