"""Commands in the process of the tests, since starting Python and JAX takes seconds each time."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
import warnings

from absl import logging

from mtbus_jax import commandline


def run(program, command, arguments) -> subprocess.CompletedProcess:
    """A command as `commandline.run` runs and ends it, for what does not change its process.

    Args:
      program: name in front of messages.
      command: as there.
      arguments: as there, of any type that can be written.

    Returns:
      Exit code and output, as of a process; an error without words is raised.
    """
    return _ended(lambda: commandline.run(program, command, list(map(str, arguments))), arguments)


def run_script(path, arguments) -> subprocess.CompletedProcess:
    """A script with its arguments, which finds its neighbours, as `run` a command."""
    before = sys.argv, sys.path
    sys.argv = [str(path), *map(str, arguments)]
    sys.path = [os.path.dirname(path), *sys.path]
    try:
        return _ended(lambda: runpy.run_path(str(path), run_name="__main__"), arguments)
    finally:
        sys.argv, sys.path = before


def _ended(work, arguments) -> subprocess.CompletedProcess:
    """What becomes of some work, as if it had been a process; what commands set is set back."""
    out, error = io.StringIO(), io.StringIO()
    logger = logging.get_absl_logger()
    before = warnings.formatwarning, logging.get_verbosity(), list(logger.filters)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            work()
    except SystemExit as end:
        code = end.code or 0
        if isinstance(code, str):  # Python prints words and ends with 1
            error.write(f"{code}\n")
            code = 1
    else:
        code = 0
    finally:
        warnings.formatwarning, verbosity, logger.filters = before
        logging.set_verbosity(verbosity)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), error.getvalue())
