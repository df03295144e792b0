"""Settings of plain values, checked against their types; an error quotes the user's words."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from stepscope.hooks.errors import StepscopeError, nearest

Made = TypeVar("Made")
WANTED = {
    "int": "a whole number is wanted, such as {key}=4",
    "float": "a number is wanted, such as {key}=1.0",
    "bool": "true or false is wanted",
    "string": 'a text is wanted, such as {key}="..."',
    "tuple": "a list is wanted, such as {key}=[{value}]",
    "list": "a list is wanted, such as {key}=[{value}]",
    "sequence": "a list is wanted, such as {key}=[{value}]",
    "mapping": "a mapping is wanted, such as {key}={{NAME:VALUE}}",
}
"""What a type wants, by the beginning of pydantic's names of errors."""
EXAMPLES = {
    "adapter.window": "a start and an end are wanted, such as adapter.window=[0.0,0.5]",
    "places": "name places={backbone.path:FOLDER}",
}


def checked(kind: type[Made], values: Mapping[str, Any], under: str = "") -> Made:
    """The dataclass of these values. Raises StepscopeError for one that is wrong, missing or unknown.

    under: the key that holds them, which errors begin with.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise StepscopeError(message_of(error.errors()[0], under)) from error


def message_of(error: ErrorDetails, under: str = "") -> str:
    """One of pydantic's errors in one line, which begins with the key and what it was given."""
    parts = [*([under] if under else []), *(str(part) for part in error["loc"])]
    key = ".".join(part for part in parts if not part.startswith(("function-", "constrained-")))
    key = key.replace("capture", "record", 1) if key.startswith("capture") else key
    kind, given = error["type"], error["input"]
    if kind == "unexpected_keyword_argument":
        return f"no configuration key {key!r}"
    whole = key.rpartition(".")[0] if key.rpartition(".")[2].isdigit() else key
    if whole in EXAMPLES and kind != "finite_number":
        return (
            f"{key}={given!r}: {EXAMPLES[whole]}"
            if kind != "missing"
            else f"{whole}: {EXAMPLES[whole]}"
        )
    if kind == "missing":
        return f"{key} is not set: name {key}=..."
    if kind == "literal_error":
        known = [
            word.strip("' ")
            for word in str(error.get("ctx", {}).get("expected", ""))
            .replace(" or ", ",")
            .split(",")
        ]
        return f"{key}={given!r}; {nearest(str(given), known)}"
    begin = kind.partition("_")[0]
    if begin in WANTED:
        value = given if isinstance(given, int | float | str) else "..."
        return f"{key}={given!r}: {WANTED[begin].format(key=whole, value=value)}"
    return f"{key}={given!r}: {error['msg']}"
