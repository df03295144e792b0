"""Whether a pocket model's image obeys its prompt, by the attribute read-out that ships with the models."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import onnxruntime

from stepscope.analysis.metrics.edited_prompt import EditedPrompt
from stepscope.analysis.metrics.metric import digests
from stepscope.hooks.errors import StepscopeError
from stepscope.probes.interventions.names import OBEYED
from stepscope.probes.places import located
from stepscope.probes.weights import WeightsError


@dataclass(frozen=True)
class EditedPromptPocket(EditedPrompt):
    """The share of the attributes that a prompt names which the read-out sees in the image.

    A prompt that names two values of an attribute is obeyed by either; NaN of one that names none.
    readout: an `.onnx` file, an output of logits for each attribute, with the prompts' phrases in it.
    """

    readout: str = "pocket/models/readout/attributes.onnx"
    name: ClassVar[str] = "edited_prompt_pocket"
    variable: ClassVar[str] = OBEYED
    what: ClassVar[str] = (
        "share of the attributes named by the prompt that the pocket read-out sees"
    )

    def model(self) -> dict[str, Any]:
        if not located(self.readout).is_file():
            raise WeightsError(f"readout: no file {self.readout!r}; the pocket models hold one")
        return {"files": digests(located(self.readout))}

    def preflight(self) -> None:
        self.model()
        load(str(located(self.readout)))

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        session, phrases = load(str(located(self.readout)))
        pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / 255
        (given,) = session.get_inputs()
        side = given.shape[2:]
        if list(pixels.shape[2:]) != side:
            raise StepscopeError(
                f"readout: it sees images of {side[0]} x {side[1]} pixels, the pocket models' own, and not "
                f"{pixels.shape[2]} x {pixels.shape[3]}"
            )
        logits = session.run([*phrases], {given.name: pixels})
        seen = dict(zip(phrases, (each.argmax(1) for each in logits), strict=True))
        return np.array([obeyed(prompt, phrases, {n: int(v[i]) for n, v in seen.items()})
                         for i, prompt in enumerate(prompts)], np.float32)  # fmt: skip


@cache
def load(path: str) -> tuple[Any, Mapping[str, Sequence[str]]]:
    """The read-out, and its phrases: of each attribute, how a prompt names each of its values.

    Raises WeightsError for a file that is not such a read-out.
    """
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session, json.loads(session.get_modelmeta().custom_metadata_map["phrases"])
    except Exception as error:  # onnxruntime has many
        raise WeightsError(f"readout: {path!r} is not the pocket attribute read-out") from error


def named(prompt: str, phrases: Mapping[str, Sequence[str]]) -> dict[str, set[int]]:
    """Of each attribute that a prompt names, the places of the values that it names."""
    text = f" {' '.join(prompt.lower().replace(',', ' ').split())} "
    found = {
        name: {i for i, phrase in enumerate(values) if f" {phrase} " in text}
        for name, values in phrases.items()
    }
    return {name: values for name, values in found.items() if values}


def obeyed(prompt: str, phrases: Mapping[str, Sequence[str]], seen: Mapping[str, int]) -> float:
    """The share of the attributes named by a prompt whose value is seen; NaN if it names none."""
    asked = named(prompt, phrases)
    if not asked:
        return float("nan")
    return sum(seen[name] in values for name, values in asked.items()) / len(asked)
