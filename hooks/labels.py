"""What samples are called: the coordinates of a run along `sample`, each of one type.

The known ones are declared in the vocabulary. Any other key of a label is a coordinate of its own, whose
type is that of its first values:

| values | stored as | where a sample has none |
|---|---|---|
| texts | str | "" |
| real numbers, or those and integers | float64 | NaN |
| integers | int64; float64 once a sample has none | NaN |
| true, false | bool; float64, 1 or 0, once a sample has none | NaN |
| else: lists, mappings, a mixture of the above, integers past 64 bits | str, as JSON | "" |

Integers of which float64 cannot hold one are stored as JSON where a sample has none. None stands for no
value, and in JSON for itself. So a value that nobody gave is never a number or a truth.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from stepscope.hooks.errors import RunError
from stepscope.hooks.vocabulary import (
    AXES,
    BLOCK_COORDINATES,
    SAMPLE_COORDINATES,
    VARIABLES,
    Variable,
)

Label = Mapping[str, Any]
"""Values of the sample coordinates of one sample: face, prompt, seed, and any of the user's own."""
Kind = Literal["str", "float", "int", "bool", "json"]

RESERVED = {*AXES, *VARIABLES, *BLOCK_COORDINATES, "analysis", "zarr.json"}
"""Names in every run that no label can have, whatever the run holds."""
_STORED = {"int": "int64", "float": "float64"}
_NONE: dict[str, Any] = {"str": "", "int64": -1, "float64": math.nan}
_WORDS = {"str": "text", "float": "real numbers", "int": "integers", "bool": "true or false"}


@dataclass(frozen=True)
class Column:
    """One sample coordinate.

    kind: of its values, as they are given. dtype: of its array. known: declared in the vocabulary, and
    so with -1 for an integer that is not known.
    """

    kind: Kind
    dtype: str
    known: bool = False

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Column":
        """For a key whose values, one a sample, are these; `ABSENT` where a sample has none."""
        found: set[Kind] = {
            _kind(value) for value in values if value is not ABSENT and value is not None
        }
        numbers = [value for value in values if isinstance(value, int | float | np.number)]
        if found == {"float"} or (found == {"float", "int"} and all(map(_exact, numbers))):
            return cls("float", "float64")
        if len(found) != 1 or found == {"json"}:
            return cls("json", "str")
        (kind,) = found
        column = cls(kind, _STORED.get(kind, kind))
        return column if column.holds(values) else column.widened(values)

    def holds(self, values: Sequence[Any]) -> bool:
        """Whether the array can hold the values, which are of the column's kind."""
        if self.known or self.dtype == "str" or self.kind == "float":
            return True
        if self.dtype == "float64":
            return all(map(_exact, filter(given, values)))
        return all(map(given, values))

    def widened(self, values: Sequence[Any]) -> "Column":
        """The same kind of values, all these, in a type in which a sample may have none."""
        column = Column(self.kind, "float64")
        return column if column.holds(values) else Column(self.kind, "str")

    def declared(self) -> Variable:
        """The declaration of its array."""
        said = "label given to the sample"
        if self.kind == "json":
            said += ", as JSON text; empty where none was given"
        elif self.dtype == "str":
            said += "; empty where none was given"
        elif self.dtype == "float64":
            said += f"{', 1 or 0' if self.kind == 'bool' else ''}; NaN where none was given"
        return Variable(("sample",), self.dtype, "1", said)

    def stored(self, values: Sequence[Any]) -> np.ndarray:
        """The values as the array holds them; `ABSENT` where a sample has none."""
        rows = [self._stored(value) for value in values]
        return np.array(rows, dtype=object if self.dtype == "str" else self.dtype)

    def _stored(self, value: Any) -> Any:
        if value is ABSENT or (value is None and self.kind != "json"):
            return _NONE[self.dtype]
        if self.dtype == "str" and self.kind != "str":
            return _json(value)
        return value

    def given_back(self, stored: np.ndarray) -> list[Any]:
        """The integers or truths that were given, of what the array holds; `ABSENT` where none was."""
        read = {"int": int, "bool": bool}[self.kind]
        return [ABSENT if value != value else read(value) for value in stored.tolist()]  # NaN

    def refusal(self, value: Any) -> str | None:
        """Why the column cannot take a value; None if it can. Raises RunError for what is no JSON."""
        kind = _kind(value) if value is not None else None
        if kind is None or self.kind in (kind, "json"):
            return None
        if self.kind == "float" and kind == "int" and _exact(value):
            return None
        return f"{value!r} is {_said(kind)}, and there it is {_WORDS[self.kind]}"


class _Absent:
    """The value of a key that a label does not have."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()

_ANY = Column("json", "str")
KNOWN: dict[str, Column] = {
    name: Column("str" if v.dtype == "str" else "int", v.dtype, known=True)
    for name, v in SAMPLE_COORDINATES.items()
}


def values_of(labels: Sequence[Label], name: str) -> list[Any]:
    """One key of every label; `ABSENT` where a label does not have it."""
    return [_value(name, label.get(name, ABSENT)) for label in labels]


def columns_of(
    labels: Sequence[Label], known: Mapping[str, Column], before: int
) -> dict[str, Column]:
    """Columns for the keys that are not among the known ones.

    before: how many samples there are without these keys already.
    """
    names = dict.fromkeys(name for label in labels for name in label if name not in known)
    return {
        name: Column.of([*[ABSENT] * min(before, 1), *values_of(labels, name)]) for name in names
    }


def check_labels(
    labels: Sequence[Label],
    columns: Mapping[str, Column] = KNOWN,
    taken: Collection[str] = (),
    where: str = "a run",
) -> None:
    """Raise RunError for a label that cannot be stored, in words that name it.

    columns: the run's sample coordinates. taken: names of the run's other arrays and axes.
    """
    others = {name.casefold(): name for name in (*RESERVED, *taken, *columns)}
    for name in dict.fromkeys(name for label in labels for name in label):
        if name in columns:
            continue
        if not isinstance(name, str) or not _is_name(name):
            raise RunError(
                f"label {name!r}: a name is letters, digits, '_', '-' and '.', and begins with a letter"
            )
        if name.casefold() in others:
            raise RunError(
                f"label {name!r}: {where} already uses {others[name.casefold()]!r} for another variable"
            )
        others[name.casefold()] = name
    for label in labels:
        for name, value in label.items():
            try:
                value = _value(name, value)
                reason = columns.get(name, _ANY).refusal(value)
            except RunError as error:
                raise RunError(f"label {name!r}: {error}") from error
            if reason is not None:
                raise RunError(f"label {name!r} of {where}: {reason}")


def stored_seed(seed: int) -> int:
    """A seed of 64 bits, as torch takes them, in the int64 of `seed`: in two's complement.

    From 2^63 on it is seed - 2^64, so 2^64 - 1 is -1, as an unknown one is: `generator` says which.
    torch draws the same noise from both. What torch does not take is left as it is.
    """
    return seed - 2**64 if 2**63 <= seed < 2**64 else seed


def _value(name: str, value: Any) -> Any:
    return stored_seed(value) if name == "seed" and isinstance(value, int) else value


def _is_name(name: str) -> bool:
    plain = name.replace("_", "").replace("-", "").replace(".", "")
    return name[:1].isalpha() and plain.isalnum() and len(name.encode()) <= 200


def _kind(value: Any) -> Kind:
    """Raises RunError for what is no value of JSON."""
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | np.integer):
        return "int" if -(2**63) <= value < 2**63 else "json"
    if isinstance(value, float | np.floating):
        return "float"
    text = value if isinstance(value, str) else _json(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RunError(f"{value!r} is no text in UTF-8") from error
    return "str" if isinstance(value, str) else "json"


def _json(value: Any) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        kind = type(value).__name__
        raise RunError(f"{kind} {str(value)[:40]!r} is no value of JSON ({error})") from error


def _exact(value: Any) -> bool:
    """Whether float64 holds the number as it is."""
    try:
        return isinstance(value, float | np.floating) or int(float(value)) == int(value)
    except OverflowError:
        return False


def given(value: Any) -> bool:
    """Whether a value is one."""
    return value is not ABSENT and value is not None


def _said(kind: Kind | None) -> str:
    words = {
        "str": "a text",
        "float": "a real number",
        "int": "an integer",
        "bool": "a truth value",
    }
    return words.get(kind or "", "JSON")
