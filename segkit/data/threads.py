"""Threads that read files: decoders and hashes work outside the interpreter's lock. Standard library only.

The threads stay until the program ends. One that ends takes OpenCV's mutexes for a moment, after Python has counted it as gone; a loader
process that is forked just then waits for them for ever (6 of 1500 times where threads end and a process is forked at once).
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

CHUNK = 8  # calls that a thread makes in one go: handing over single ones costs as much as a small picture
Result = TypeVar("Result")


def cores() -> int:
    """The cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def each(function: Callable[[int], Result], length: int, threads: int | None = None) -> Iterator[Result]:
    """The function of 0..length-1, in order, by threads, one per core unless told; the function makes no use of `each` itself."""
    chunks = [range(first, min(first + CHUNK, length)) for first in range(0, length, CHUNK)]
    for results in _pool(threads or cores()).map(lambda chunk: [function(index) for index in chunk], chunks):
        yield from results


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "reader")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked process has none of the threads
