"""A call made: its pipeline, its arguments, and every variant that a class has."""

import inspect
from typing import Any

from tests.every_pipeline import build, pipeline_class
from tests.every_pipeline_calls import Call, asked_of, plain_arguments
from tests.every_pipeline_variants import WORDS, Asked


def pipeline_of(call: Call) -> Any:
    """A new pipeline, with modules of its own where the call changes them."""
    given: dict[str, Any] = {}
    for word in sorted(call.words):
        given |= WORDS[word].components(call.name)
    pipe = build(call.name, **given)
    for word in sorted(call.words):
        WORDS[word].change(pipe)
    return pipe


def arguments_of(call: Call) -> dict[str, Any]:
    """Everything that the pipeline is given, with generators that have drawn nothing yet."""
    asked = inspect.signature(pipeline_class(call.name).__call__).parameters
    given = plain_arguments(call)
    for word in sorted(call.words):
        given |= WORDS[word].arguments(call, given, asked)
    return asked_of(given, call.name)


def variants(name: str) -> list[Call]:
    """Every call that the class's signature allows, the guided one first if there is one."""
    kind = pipeline_class(name)
    signatures = inspect.signature(kind.__call__), inspect.signature(kind.__init__)
    asked = Asked(name, *(signature.parameters for signature in signatures))
    guided = {"guided"} if asked.can_guide else set()
    found: list[set[str]] = [{"guided"}, set()] if guided else [set()]
    for word, entry in WORDS.items():
        if word != "guided" and entry.fits(asked):
            found.append(guided | {word})
            if entry.alone and guided:
                found.append({word})
    return [Call(name, frozenset(words)) for words in found]
