"""Objects with connections and locks release them while the process forks.

SQLite does not allow a child process to use a connection of its parent. A lock that another thread
holds during the fork would stay locked in the child for ever. Objects therefore wait for users and
close before a fork, and reopen in both processes at their next use.
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
        """Wait for users, block new ones, and close what a child must not inherit."""

    def after_fork(self) -> None:
        """Allow users again. Called in the parent and in the child."""


_HOLDERS: weakref.WeakValueDictionary[int, ForkAware] = weakref.WeakValueDictionary()
_numbers = itertools.count()
_paused: list[ForkAware] = []


def pause_at_fork(holder: ForkAware) -> None:
    """Register an object to be paused at each fork, for as long as it exists.

    Objects are paused in reverse order of registration, because a later one may use earlier ones.
    """
    _HOLDERS[next(_numbers)] = holder


def never_destroy(inherited: object) -> None:
    """Keep an inherited object of a child process alive until the process ends.

    For example, a thread pool waits for its threads when it is destroyed, and a child has none.
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
