"""What all commands share: how flags are written, how errors are shown, how a command ends.

A command is a function ``main(argv, *, program) -> int | None``. It takes the arguments without the
program's name, and the name ``program`` to show in messages. It returns the exit code, None for 0.
`run` calls it for `mtbus_jax.cli`, for ``main.py`` and for every ``python -m mtbus_jax.…``.
"""

from __future__ import annotations

import argparse
import difflib
import functools
import inspect
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from logging import ERROR
from typing import NoReturn

from absl import logging

from mtbus_jax.errors import UserError, exit_on_user_error

Command = Callable[..., int | None]

_AS_PYTHON = warnings.formatwarning

_TRUE, _FALSE = ("true", "t", "1", "yes"), ("false", "f", "0", "no")


def run(program: str, command: Command, argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and ends the process with its exit code.

    Args:
      program: name in front of messages, such as ``main.py``.
      command: see the module's docstring.
      argv: its arguments; default: the process's own.

    Raises:
      SystemExit: always. With code 2 after a `UserError` or a failed write, which is printed as one
        paragraph; after a signal, as `errors.exit_on_user_error` says.
    """
    for stream in (sys.stdout, sys.stderr):
        # "±" on a terminal without UTF-8 becomes "?"; a finished training must not fail on it.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    # Orbax logs every file it opens; warnings still come through. Its logged errors, each pages
    # long, are dropped, since it raises them as well.
    logging.set_verbosity(logging.WARNING)
    logging.get_absl_logger().addFilter(
        lambda record: record.levelno < ERROR or "orbax" not in record.pathname
    )
    warnings.formatwarning = functools.partial(_warning, program)
    with exit_on_user_error(program):
        try:
            code = command(sys.argv[1:] if argv is None else argv, program=program)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has closed the pipe, as `| head` does; print nothing at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 128 + signal.SIGPIPE
        sys.exit(code)


def _warning(program: str, message, category, *where) -> str:
    """A warning to the user as one line; one to programmers as Python shows it."""
    if category is UserWarning:
        return f"{program}: {message}\n"
    return _AS_PYTHON(message, category, *where)


def nearest(name: str, known: Iterable[str]) -> str:
    """`` Did you mean "epochs"?`` for the closest of the known names; "" where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f' Did you mean "{close[0]}"?' if close else ""


def file_path(text: str) -> str:
    """Type of a flag that names a file or folder; expands ``~`` to the home folder."""
    return os.path.expanduser(text)


def numbers(text: str) -> tuple[int, ...]:
    """Type of a flag that takes comma-separated whole numbers, such as ``--folds=0,1``."""
    try:
        return tuple(int(each) for each in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"={text}: give comma-separated numbers, such as 0,1"
        ) from None


def names(text: str) -> tuple[str, ...]:
    """Type of a flag that takes comma-separated words, such as ``--formats=onnx,stablehlo``."""
    return tuple(each.strip() for each in text.split(",") if each.strip())


def places(args: argparse.Namespace) -> dict[str, str]:
    """Fields of ``config.data`` that the flags of `Parser.add_places` change: where the data are.

    If any flag is given, the run's own ``arrays_file`` is not used, only one that a flag names.
    """
    found = {name: getattr(args, name) for name in ("data_dir", "manual_dir", "arrays_file")}
    found |= {"name": args.data, "folds_file": args.folds_file}
    given = {name: value for name, value in found.items() if value}
    return {"arrays_file": ""} | given if given else {}


def within(
    number: type[int] | type[float], low: float | None = None, high: float | None = None
) -> Callable[[str], int | float]:
    """Type of a flag that takes one number from a range, limits included.

    Args:
      number: int or float.
      low: the smallest, None for no limit.
      high: the largest, None for no limit.
    """
    what = "a whole number" if number is int else "a number"
    limits = [f"from {low}"] * (low is not None) + [f"up to {high}"] * (high is not None)

    def parse(text: str) -> int | float:
        try:
            value = number(text)
        except ValueError:
            value = None
        if (
            value is None
            or (low is not None and not value >= low)
            or (high is not None and not value <= high)
        ):
            raise argparse.ArgumentTypeError(f"={text}: give {' '.join([what, *limits])}")
        return value

    return parse


def _truth(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"={text}: give true or false")


class Parser(argparse.ArgumentParser):
    """Reads ``--name=value`` or ``--name value``; any mistake in them raises `UserError`."""

    def __init__(self, program: str, description: str | None):
        """A parser that knows ``--help``.

        Args:
          program: the command's name, as messages show it.
          description: the command's docstring, shown by ``--help``.
        """
        super().__init__(
            program,
            description=inspect.cleandoc(description or ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add_configuration(self, default: str | None = None) -> None:
        """Lists ``--config`` in the help; `mtbus_jax.configuration.take` reads it beforehand.

        Args:
          default: name of the configuration that is used without it.
        """
        self.add_argument(
            "--config",
            metavar="FILE.py",
            help="configuration, such as configs/mt_unetpp.py, or its name without .py for one "
            "that comes with this package; --config.FIELD=VALUE changes a field"
            + (f"; default: {default}" if default else ""),
        )

    def add_paths(self, *, required: bool = False, **flags: str) -> None:
        """Adds flags that each name a file or folder.

        Args:
          required: whether the flags are required.
          **flags: names without dashes, and what ``--help`` says of each.
        """
        for name, what in flags.items():
            self.add_argument(f"--{name}", required=required, type=file_path, help=what)

    def add_places(self) -> None:
        """Adds the flags that `places` reads: where the data of a run are on this machine."""
        self.add_paths(
            data="for a run on your own pictures: the folder where they are now",
            folds_file="for a run with a file of folds: where that file is now",
            data_dir="folder of the built datasets, instead of the run's own",
            manual_dir="folder of the raw data, instead of the run's own",
            arrays_file="file of mtbus pack, instead of the run's data",
        )

    def switch(self, name: str, *, help: str) -> None:
        """Adds a flag that is on as ``--name`` or ``--name=true``, off as ``--noname``.

        Args:
          name: with its two dashes.
          help: what it does when on; it is off by default.
        """
        dest = name.removeprefix("--")
        self.add_argument(
            name,
            nargs="?",
            const=True,
            default=False,
            type=_truth,
            metavar="BOOL",
            help=help,
        )
        self.add_argument(
            f"--no{dest}", action="store_const", const=False, dest=dest, help=argparse.SUPPRESS
        )

    def parse_args(self, args: Sequence[str] | None = None, namespace=None) -> argparse.Namespace:
        """The values of the flags.

        Args:
          args: as in `argparse.ArgumentParser.parse_args`.
          namespace: as there.

        Raises:
          UserError: for an argument that is not known, lacks its value or has a wrong one.
        """
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            self._refuse(rest[0])
        return found

    def _refuse(self, argument: str) -> NoReturn:
        if not argument.startswith("-"):
            raise UserError(
                f"unexpected argument {argument!r}; flags are written --name=value or --name value."
            )
        flag = argument.partition("=")[0]
        known = [name for name in self._option_string_actions if name.startswith("--")]
        raise UserError(
            f"{flag}: there is no such flag.{nearest(flag, known)} --help lists the flags."
        )

    def error(self, message: str) -> NoReturn:
        """Called by argparse for a wrong value or a missing flag.

        Raises:
          UserError: always.
        """
        message = message.removeprefix("argument ").replace(": =", "=", 1)  # a type's, see above
        raise UserError(f"{message}. --help lists the flags.")
