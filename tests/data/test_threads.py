"""Threads that read: in order, errors included, and none of them ends before the program."""

import os
import threading

import pytest

from segkit.data.threads import each


def test_results_come_in_order():
    assert list(each(lambda index: index**2, 100, threads=3)) == [index**2 for index in range(100)]
    assert list(each(str, 0)) == []


def test_an_error_comes_where_its_index_is():
    def half(index):
        if index == 40:
            raise KeyError(index)
        return index

    found = each(half, 100, threads=2)
    assert [next(found) for _ in range(40)] == list(range(40))
    with pytest.raises(KeyError):
        next(found)
    assert list(each(half, 40, threads=2)) == list(range(40))  # the threads go on


def test_no_thread_ends_with_the_pass():
    list(each(str, 50, threads=2))
    there = {thread.ident for thread in threading.enumerate() if thread.name.startswith("reader")}
    list(each(str, 50, threads=2))
    assert there
    assert there <= {thread.ident for thread in threading.enumerate()}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    list(each(str, 50, threads=2))
    child = os.fork()
    if not child:
        import signal

        signal.alarm(20)  # instead of waiting for ever for threads that are not there
        os._exit(0 if list(each(int, 20, threads=2)) == list(range(20)) else 1)
    assert os.waitpid(child, 0)[1] == 0
