"""What holds connections and locks is put aside while the process forks.

SQLite forbids to carry a connection into a child process, and a lock that another thread held
at the fork would stay locked in the child for ever. So holders close and lock before a fork, and
open again on either side when they are next used.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import weakref
from operator import itemgetter
from typing import Protocol


class ForkAware(Protocol):
    """Something that must not be in use while the process forks."""

    def before_fork(self) -> None:
        """Wait for users, keep others out, and close what a child must not inherit."""

    def after_fork(self) -> None:
        """Let users in again; called in the parent and in the child."""


_HOLDERS: weakref.WeakValueDictionary[int, ForkAware] = weakref.WeakValueDictionary()
_numbers = itertools.count()
_paused: list[ForkAware] = []


def pause_at_fork(holder: ForkAware) -> None:
    """Have a holder put itself aside at each fork for as long as it lives.

    The one that came last does so first: it may be waiting for those that it is built on.
    """
    _HOLDERS[next(_numbers)] = holder


def never_destroy(inherited: object) -> None:
    """Keep what a child process has inherited until it ends, without ever closing it.

    A pool of threads, for instance, waits for its threads when it is closed, and a child has none.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


def _before() -> None:
    for _, holder in sorted(_HOLDERS.items(), key=itemgetter(0), reverse=True):
        holder.before_fork()
        _paused.append(holder)


def _after() -> None:
    while _paused:
        _paused.pop().after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
