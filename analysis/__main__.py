"""`stepscope measure RUN.zarr ...`: measure runs, each metric into the run's `analysis` group.

    stepscope measure runs/*.zarr                               what figures need
    stepscope measure a.zarr 'metrics=[arcface_final]'          identity of the final images alone
    stepscope measure own.zarr --reference ada=ada.jpg          of your own pipeline
    stepscope measure a.zarr 'recognisers=[antelopev2,buffalo_l,models/ir_se50.pth]'

`python -m analysis` is the same. What was measured with the same inputs is left as it is; interrupted, the
same command continues. The figures, tables and the report are drawn by `stepscope paper`.
"""

import glob
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepscope.probes.usage import answer_help, says

if __name__ == "__main__":
    answer_help("analysis")

from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.paths import local_path
from stepscope.probes.command import command, entry
from stepscope.probes.values import checked

SHELL = "*?["
USUAL = ("decode", "arcface", "sharpness", "latency")
"""What is measured where no metric is named, as far as a run has what each needs."""
LISTS = ("runs", "metrics", "recognisers", "photos")
SHOWN = 3  # runs that the last line names


def analyse(config: Mapping[str, Any]) -> None:
    """Do what the configuration `conf/analysis.yaml` says. Raises StepscopeError as `measure_all`."""
    values = {k: [v] if k in LISTS and isinstance(v, str) else v for k, v in config.items()}
    named, chosen, dry = map(values.pop, ("runs", "metrics", "dry"))
    metrics = list(USUAL) if chosen is None else list(map(str, chosen))
    if not named:
        raise StepscopeError(f"no run is named: {says('measure')} runs/a.zarr")
    values["references"] = named_photos(values["references"])
    if values.get("many_step") is not None:
        values["many_step"] = str(local_path(str(values["many_step"]), "many_step"))
    runs = [path for name in named for path in matching(str(name))]

    import stepscope.probes.quiet  # noqa: F401  (it silences what later imports print)
    from stepscope.analysis.measure import Settings, measure_all
    from stepscope.analysis.no_face import no_face_lines

    settings = checked(Settings, values)
    done = measure_all(
        runs, metrics, settings, print, leave_out=chosen is None, remember=True, dry=bool(dry)
    )
    if dry:
        print("ready: the same command without --dry measures them")
        return
    for line in no_face_lines(runs, done):
        print(line)
    print(summary(len(runs), done, [name for name in metrics if name not in done]))
    print(
        f"next: {says('explore')} {shlex.join(runs[:SHOWN])}{' ...' if len(runs) > SHOWN else ''}"
    )


def summary(runs: int, done: Sequence[str], lost: Sequence[str]) -> str:
    """What was measured of all runs, and what was left out of a run."""
    many = "1 run is" if runs == 1 else f"{runs} runs are"
    left = "left out" if runs == 1 else "left out of at least one run"
    said = f"; {left}, with the reason above: {', '.join(lost)}" if lost else ""
    return f"{many} measured by {', '.join(done) or 'nothing'}{said}"


def matching(name: str) -> list[str]:
    """The runs of a path or a pattern. Raises StepscopeError for a pattern that nothing matches."""
    path = str(local_path(name, "runs"))
    found = [path]
    if any(sign in path for sign in SHELL) and not Path(path).exists():
        found = sorted(glob.glob(path))
    if not found:
        raise StepscopeError(f"runs: nothing matches {name!r}")
    return found


def named_photos(given: Any) -> Sequence[str] | dict[str, str]:
    """Reference photos by the names of people, or a list of files that are named by themselves.

    given: a photo, {NAME: PHOTO}, or a list of photos, of such mappings, and of texts `NAME=PHOTO`. Raises
    StepscopeError for a name that stands twice.
    """
    if isinstance(given, Mapping):
        return {str(name): str(photo) for name, photo in given.items()}
    pairs: list[tuple[str | None, str]] = []
    for one in given if isinstance(given, list | tuple) else [given]:
        if isinstance(one, Mapping):
            pairs += [(str(name), str(photo)) for name, photo in one.items()]
            continue
        name, sign, photo = str(one).partition("=")
        named = bool(sign) and not Path(str(one)).expanduser().exists()
        pairs.append((name, photo) if named else (None, str(one)))
    if all(name is None for name, _ in pairs):
        return [photo for _, photo in pairs]
    found: dict[str, str] = {}
    for name, photo in ((name or Path(photo).stem, photo) for name, photo in pairs):
        if name in found:
            raise StepscopeError(f"references names {name!r} twice: {found[name]} and {photo}")
        found[name] = photo
    return found


main = entry("analysis", analyse)

if __name__ == "__main__":
    sys.exit(command(main))
