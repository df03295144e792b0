"""`python -m stepscope.analysis.planted`: rank methods by how well they find where identity was planted.

Each organism is made from the models and checked: with all its planted places on, the judge's similarity to
the person must clearly exceed that with them off. Every method then scores every place of those that pass.
The scores of interventions are measured on final images. A finished organism is read from its file, so that
the same command continues after an interruption.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepscope.analysis.planted import result
from stepscope.analysis.planted.judging import Judge, load_judge
from stepscope.analysis.planted.result import Result
from stepscope.analysis.planted.settings import Settings, from_config
from stepscope.analysis.planted.table import failing, markdown, sentence, table
from stepscope.hooks.edits.sites import ADAPTER
from stepscope.probes import models, plan
from stepscope.probes.command import entry
from stepscope.probes.faces import face_files
from stepscope.probes.intervene import sites_of
from stepscope.probes.planting.bench import Bench
from stepscope.probes.planting.organism import Organism, organisms
from stepscope.probes.study import Study

Say = Callable[[str], None]


def planted(settings: Settings, study: Study, say: Say = print) -> list[Result]:
    """Make the benchmark, write its table and return the results, also of organisms that did not pass."""
    out = Path(settings.out)
    sites = [name for name in sites_of(study).names if name.endswith(f".{ADAPTER}")]
    groups = -(-len(sites) // settings.together)
    wanted = organisms(settings.seed, settings.count, groups, study.steps)
    if settings.dry:
        say("\n".join(f"{one.name}: {described(one)}" for one in wanted))
        return []
    out.mkdir(parents=True, exist_ok=True)
    results, ready = [], None
    for one in wanted:
        path, asked = out / f"{one.name}.json", asked_of(settings, study, one)
        found = result.read(path, one, asked)
        if found is None:
            bench, judge = ready = ready or load(settings, study)
            bar = settings.least, settings.enough
            found = result.measured(one, bench, judge, settings.targets, settings.rows, bar)
            result.write(path, found, asked)
        say(told(found))
        results.append(found)
    report(results, out, say)
    return results


def load(settings: Settings, study: Study) -> tuple[Bench, Judge]:
    """The models and the judge."""
    shape = plan.latent_shape(plan.outline(study))
    loaded = models.load(study, face_files(study.faces), shape, len(study.faces))
    return Bench(loaded, settings.together), load_judge(loaded, settings.judge)


def asked_of(settings: Settings, study: Study, organism: Organism) -> dict[str, Any]:
    """What decides an organism's result, as JSON values."""
    own = {
        k: v for k, v in vars(settings).items() if k not in ("out", "dry", "seed", "count", "rows")
    }
    told = replace(study, batch_size=1)
    return {
        "organism": organism.told(),
        "settings": own,
        "models": json.loads(json.dumps(told, default=vars)),
    }


def described(organism: Organism) -> str:
    """An organism in words, places as group.step."""
    parts = " or ".join(_places(part) for part in organism.parts)
    decoys = f"; decoys ({organism.decoy}) at {_places(organism.decoys)}" if organism.decoys else ""
    return f"identity x {organism.scale} at {parts}{decoys}"


def _places(places: Sequence[tuple[int, int]]) -> str:
    return " ".join(f"{group}.{step}" for group, step in places)


def told(found: Result) -> str:
    """A result in one line."""
    on, off = found.check.on.mean(), found.check.off.mean()
    verdict = (
        "" if found.passed else "; left out: the planted identity does not show clearly enough"
    )
    name = found.organism.name
    return f"{name}: similarity {off:.2f} without and {on:.2f} with what was planted{verdict}"


def report(results: Sequence[Result], out: Path, say: Say) -> None:
    """Write `table.csv` and `table.md`, and say the latter."""
    passed = sum(one.passed for one in results)
    lines = [f"{passed} of {len(results)} organisms passed their check; the others are left out."]
    if passed:
        found = table(results)
        found.to_csv(out / "table.csv", index=False)
        below = "; ".join(failing(found)) or "none"
        lines += ["", markdown(found), "", sentence(results), ""]
        lines += [f"Not shown to be better than chance (0.5): {below}."]
    text = "\n".join(lines)
    (out / "table.md").write_text(text + "\n")
    say(text)


def run_planted(config: Mapping[str, Any]) -> None:
    """Make the benchmark of `conf/planted.yaml`."""
    planted(*from_config(config))


main = entry("planted", run_planted)
