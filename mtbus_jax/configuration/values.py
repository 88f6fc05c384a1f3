"""Fields of a configuration by dotted name: their values, and how text is read as a value."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable
from typing import Any

from absl import flags
from ml_collections import config_dict, config_flags

from mtbus_jax.commandline import nearest
from mtbus_jax.errors import UserError

# Example elements, which give the type of fields whose value may be empty.
_ELEMENTS = dict.fromkeys(("data.classes", "data.class_names"), ("benign", "malignant"))
_ELEMENTS |= {"data.folds": (0, 1), "loss.class_weights": (0.6, 1.2)}
_NONE = ("none", "None")
# Fields that name a file or folder.
PATHS = ("data.data_dir", "data.manual_dir", "data.arrays_file", "data.cache_dir")
PATHS += ("data.folds_file", "train.start_from")
_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    tuple: "comma-separated values",
    config_dict.ConfigDict: "a dictionary of all its fields",
}


def leaves(config: config_dict.ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Values by dotted name; sections are not among them."""
    found = {}
    for name, value in config.items():
        if isinstance(value, config_dict.ConfigDict):
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def nearest_field(field: str, known: Iterable[str]) -> str:
    """A hint at the field that was meant, or at where to look if none is close."""
    section, _, name = field.rpartition(".")
    siblings = [each for each in known if each.rpartition(".")[0] == section]
    elsewhere = {each.rpartition(".")[2]: each for each in known}
    hint = nearest(name, [each.rpartition(".")[2] for each in siblings])
    if hint:
        hint = hint.replace('"', f'"{section}.' if section else '"', 1)
    elif name in elsewhere:
        hint = nearest(elsewhere[name], [elsewhere[name]])
    elif not siblings:
        hint = nearest(field, known)
    if hint:
        return hint
    if section and siblings:
        short = ", ".join(each.rpartition(".")[2] for each in siblings)
        return f" Fields of {section}: {short}."
    return " configs/base.py lists all fields."


def as_text(value: Any) -> str | bool:
    """A Python value as it would be written on a command line; True and False stay.

    Args:
      value: a text, path, number, list of those, or None; NumPy values count as Python's.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str | bool):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return repr(tuple(value) if isinstance(value, range) else value)


def change(
    config: config_dict.ConfigDict, base: config_dict.ConfigDict, field: str, text: str | bool
) -> None:
    """Sets one field from the text after ``--config.field=``.

    Raises:
      UserError: if there is no such field, or the text does not fit its type.
    """
    value = _value(config, field)
    if isinstance(text, bool):
        if not isinstance(value, bool) and _kind(config, field) != _KINDS[bool]:
            raise UserError(f"--config.{field} needs a value: {_kind(config, field)}.")
        text = str(text)
    if text in _NONE and leaves(base).get(field, "") is None:
        section, _, name = field.rpartition(".")
        config[section][name] = None
        return
    if text == "None" and field in PATHS:
        raise UserError(f'--config.{field}=None: give a folder or file, or "" for none.')
    if isinstance(value, tuple):
        text = repr(_as_tuple(field, text, value))
    argument = f"--config.{field}={text}"
    given = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict(
            "config", config, lock_config=False, flag_values=given, sys_argv=["", argument]
        )
        given(["", argument])
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError):
        example = "" if value is None or value == "" else f", such as {value}"
        if isinstance(value, config_dict.ConfigDict):
            example = f"; or change one of its fields, as in --config.{field}.{next(iter(value))}=…"
        raise UserError(f"{argument}: give {_kind(config, field)}{example}.") from None


def _kind(config: config_dict.ConfigDict, field: str) -> str:
    """What a field takes, as text."""
    section, _, name = field.rpartition(".")
    kind = (config[section] if section else config).get_type(name)
    return _KINDS.get(kind, kind.__name__)


def _as_tuple(field: str, text: str, like: tuple) -> tuple:
    """Reads ``(0, 1)``, ``0,1``, ``('seg', 'cls')`` or ``seg,cls``.

    Args:
      field: its name.
      text: as given.
      like: value of the field so far; the new one has elements of that type, but any number.
    """
    like = like or _ELEMENTS.get(field, ())
    kind = type(like[0]) if like else object
    words = tuple(word.strip(" '\"") for word in text.strip("()[] ").split(",") if word.strip())
    try:
        found = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        found = words
    found = tuple(found) if isinstance(found, tuple | list) else (found,)
    if field in _ELEMENTS and kind is str and all(type(each) in (int, float) for each in found):
        found = words  # a class may be called 0
    if kind is float and all(type(each) in (int, float) for each in found):
        found = tuple(map(float, found))
    if not all(isinstance(each, kind) for each in found):
        example = ",".join(map(str, like[:2]))
        what = {int: "whole numbers", float: "numbers"}.get(kind, "words")
        raise UserError(
            f"--config.{field}={text}: give comma-separated {what}, such as "
            f"--config.{field}={example}."
        )
    return found


def _value(config: config_dict.ConfigDict, field: str) -> Any:
    """Value of a field.

    Raises:
      UserError: if there is none of that name.
    """
    value: Any = config
    for part in field.split("."):
        if not isinstance(value, config_dict.ConfigDict) or part not in value:
            near = nearest_field(field, leaves(config))
            raise UserError(f"--config.{field}: the configuration has no such field.{near}")
        value = value[part]
    return value
