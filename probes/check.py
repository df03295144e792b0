"""`stepscope check`: does a recording of these models, on this machine, mean what it says?

Takes the configuration of a run and checks its first batch with `hooks.verify`.
"""

import sys
from dataclasses import replace

from stepscope.probes.usage import answer_help

if __name__ == "__main__":
    answer_help("config", "check")

import stepscope.probes.quiet  # noqa: F401  isort: skip  (first: it silences what later imports print)

from stepscope.hooks.errors import StepscopeError
from stepscope.hooks.verify import Finding, verify
from stepscope.probes import grid, models, plan
from stepscope.probes.command import command, entry
from stepscope.probes.faces import face_files
from stepscope.probes.study import Study, prompts_of

STEPS = 2  # enough: wiring does not depend on the step


def check(study: Study) -> list[Finding]:
    """Findings on the study's first batch, in two steps. Raises StepscopeError as a run would."""
    short = replace(study, steps=min(study.steps, STEPS))
    files = face_files(study.faces)
    cells = grid.cells(list(files), prompts_of(study), study.seeds)
    shape = plan.latent_shape(plan.outline(short))
    loaded = models.load(short, files, shape, len(cells))
    with loaded.ready() as call:
        return verify(loaded.pipe, lambda: loaded.sample(cells[: study.batch_size], call))


def report(study: Study) -> None:
    """Print the findings; raise StepscopeError if one does not hold."""
    findings = check(study)
    for finding in findings:
        print(f"{'ok   ' if finding.holds else 'FAILS'} {finding.claim}: {finding.detail}")
    failed = [finding.claim for finding in findings if not finding.holds]
    if failed:
        raise StepscopeError(
            f"{len(failed)} of {len(findings)} claims do not hold here: do not record"
        )


main = entry("config", lambda values: report(Study.from_config(values)))

if __name__ == "__main__":
    sys.exit(command(main))
