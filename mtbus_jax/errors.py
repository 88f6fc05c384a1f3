"""The one exception for a user's mistake, and how a command line ends on it."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from collections.abc import Iterator

EXIT_USAGE = 2


class UserError(Exception):
    """Wrong use or bad input; the message is one paragraph that names the thing and the mend.

    Library functions raise it; command lines print it without a traceback and exit with 2.
    """


def reason(error: BaseException) -> str:
    """Why something failed, in a line: what the system said, where that is behind it.

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
    """Turns a `UserError` inside the block into one paragraph on standard error and exit code 2.

    Args:
      program: name printed in front of the message, such as ``main.py``.
    """
    try:
        yield
    except UserError as error:
        paragraph = " ".join(str(error).split())
        text = textwrap.fill(
            f"{program}: {paragraph}", width=100, break_long_words=False, break_on_hyphens=False
        )
        print(text, file=sys.stderr)
        raise SystemExit(EXIT_USAGE) from None
