"""What a JSON file must hold, written as a value of the same form.

A schema is a type (``str``, ``int``, ``float``, ``bool``), a tuple of schemas of which one must
fit, the usual one first, None for null, a list of one schema for a list of any length, `Each` for a
dictionary of any names, or a dictionary of named fields. A field whose name ends in ``?`` may be
missing; fields without a schema may be anything.
"""

from __future__ import annotations

import dataclasses
from typing import Any

_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclasses.dataclass(frozen=True)
class Each:
    """A dictionary with any names.

    Attributes:
      schema: of each of its values.
    """

    schema: Any


def misfit(content: Any, schema: Any, where: str = "") -> str:
    """A text saying what is wrong with ``content``; empty if nothing is.

    Args:
      content: as `json.loads` returns it.
      schema: see the module.
      where: name of ``content``, put before the names of its parts.
    """
    if isinstance(schema, tuple):
        found = [misfit(content, each, where) for each in schema]
        return found[0] if all(found) else ""
    if isinstance(schema, dict | Each):
        return _misfit_of_fields(content, schema, where)
    if isinstance(schema, list):
        if not isinstance(content, list):
            return f"{where or 'the whole'} is not a list"
        parts = (misfit(each, schema[0], f"{where}[{i}]") for i, each in enumerate(content))
        return next(filter(None, parts), "")
    if schema is None:
        return "" if content is None else f"{where} is not null"
    whole = isinstance(content, float if schema is float else schema)
    whole |= schema is float and isinstance(content, int)
    if not whole or (isinstance(content, bool) and schema is not bool):
        return f"{where or 'the whole'} is not {_WORDS[schema]}"
    return ""


def _misfit_of_fields(content: Any, schema: dict[str, Any] | Each, where: str) -> str:
    if not isinstance(content, dict):
        return f"{where or 'the whole'} has no fields"
    fields = {f"{n}?": schema.schema for n in content} if isinstance(schema, Each) else schema
    for field, wanted in fields.items():
        name = field.removesuffix("?")
        path = f"{where}.{name}" if where else name
        if name not in content:
            if not field.endswith("?"):
                return f"{path} is missing"
        elif problem := misfit(content[name], wanted, path):
            return problem
    return ""
