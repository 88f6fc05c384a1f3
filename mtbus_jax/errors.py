"""The exception for a user's mistake, and how a command ends after one."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import textwrap
from collections.abc import Iterator

EXIT_USAGE = 2
EXIT_SIGNAL = 128  # plus the signal's number, as in a shell
_SIGINT = 2

# Failures for lack of space or permissions, which are not the program's fault.
_MENDS = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Make room there")
_MENDS |= dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "Make it writable")
_MENDS[errno.EIO] = "Check the disk"


class UserError(Exception):
    """Wrong use or bad input; the message is one paragraph that names the problem and the fix.

    Library functions raise it; command lines print it without a traceback and exit with 2.
    """


class Stopped(KeyboardInterrupt):
    """Stopped from outside; the message says how to continue.

    Attributes:
      number: of the signal.
    """

    def __init__(self, message: str, number: int = _SIGINT):
        """A stop by the signal ``number``."""
        super().__init__(message)
        self.number = number


def unwritable(path: os.PathLike | str, error: OSError) -> UserError:
    """The error to raise when a file or folder cannot be written."""
    mend = _MENDS.get(error.errno, "Give another place")
    return UserError(f"{path} cannot be written: {reason(error)}. {mend}, and try again.")


def reason(error: BaseException) -> str:
    """Why something failed, in one line: the system's own message if it is the cause.

    Args:
      error: of any library; its chain of causes is searched for an `OSError`.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split())
    return f"{text[:300]} …" if len(text) > 300 else text


@contextlib.contextmanager
def exit_on_user_error(program: str) -> Iterator[None]:
    """Ends the program if a user's mistake, the machine or a signal ends the block.

    A `UserError`, a full disk or a missing permission becomes one paragraph on standard error and
    exit code 2. Ctrl-C and `Stopped` become one line and the exit code that shells use for signals.

    Args:
      program: name printed in front of the message, such as ``main.py``.
    """
    try:
        yield
    except UserError as error:
        message, code = str(error), EXIT_USAGE
    except OSError as error:
        if error.errno not in _MENDS:
            raise
        message, code = str(unwritable(error.filename or "a file", error)), EXIT_USAGE
    except Stopped as stop:
        message, code = str(stop), EXIT_SIGNAL + stop.number
    except KeyboardInterrupt:
        message, code = "stopped. Run the same command again.", EXIT_SIGNAL + _SIGINT
    else:
        return
    print(_paragraph(program, message), file=sys.stderr)
    raise SystemExit(code)


def _paragraph(program: str, message: str) -> str:
    return textwrap.fill(
        f"{program}: {' '.join(message.split())}",
        width=100,
        break_long_words=False,
        break_on_hyphens=False,
    )
