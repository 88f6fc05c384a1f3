"""Commands in the process of the tests, since starting Python and JAX takes seconds each time."""

import contextlib
import io
import subprocess
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
    out, error = io.StringIO(), io.StringIO()
    logger = logging.get_absl_logger()
    before = warnings.formatwarning, logging.get_verbosity(), list(logger.filters)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            commandline.run(program, command, list(map(str, arguments)))
    except SystemExit as end:
        return subprocess.CompletedProcess(
            arguments, end.code or 0, out.getvalue(), error.getvalue()
        )
    finally:
        warnings.formatwarning, verbosity, logger.filters = before
        logging.set_verbosity(verbosity)
