"""Keeps memory that a CPU program frees, so that the next step need not ask for it again.

XLA's CPU backend allocates the memory of a program anew for every call, hundreds of megabytes for a
training step. The GNU C library returns blocks of that size to the operating system at once, and
the next step pays for the page faults again: a tenth of a training step on two cores, and up to
half of the cheap operations.
"""

from __future__ import annotations

import ctypes

# Of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_NEVER = 2**31 - 1
_PAD_BYTES = 256 << 20
# Up to this many pictures at a time, what a program allocates fits a thread's own pool.
_SMALL_BATCH = 4


def keep_freed_memory(*, of_all_threads: bool = True) -> bool:
    """Tells the C library to keep freed memory; the process then stays at its peak size.

    Must be called before threads allocate, so at the start. Does nothing without glibc.

    Args:
      of_all_threads: False keeps only what the main thread frees, which suffices where programs run
        in it (`parallel.run_in_caller`). To keep more, all threads must share one pool of memory,
        and those that compile a program wait for each other at its lock.

    Returns:
      Whether it was possible.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _PAD_BYTES}
    if of_all_threads:
        settings[_ARENA_MAX] = 1
    accepted = [library.mallopt(name, value) for name, value in settings.items()]
    return all(accepted)


def keep_for_prediction(batch_size: int) -> bool:
    """`keep_freed_memory` with the fastest setting for programs that run in their own threads.

    A shared pool keeps the large blocks of large batches. With small batches it does not pay:
    threads wait for each other at its lock, and searching it takes longer than it saves.

    Args:
      batch_size: pictures that go through the network together.

    Returns:
      Whether it was possible.
    """
    return keep_freed_memory(of_all_threads=batch_size > _SMALL_BATCH)
