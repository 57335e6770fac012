import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from segkit.inference.claims import SILENCE, Claims, machine, stale, started


@pytest.fixture
def claims(tmp_path):
    made = []

    def make():
        made.append(Claims(tmp_path / "claims"))
        return made[-1]

    yield make
    for one in made:
        one.close()


def file_of(folder):
    (path,) = folder.glob("*.claim")
    return path


def write(folder, owner, age=0.0):
    path = file_of(folder)
    path.write_text(owner if isinstance(owner, str) else json.dumps(owner))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_one_of_two_gets_a_claim_until_the_other_gives_it_back(claims, tmp_path):
    a, b = claims(), claims()
    with a.claim("x/1") as first:
        assert first
        with b.claim("x/1") as second:
            assert not second
        with b.claim("x/2") as other:
            assert other
        assert json.loads(file_of(tmp_path / "claims").read_text())["pid"] == os.getpid()
    with b.claim("x/1") as again:
        assert again


def test_a_claim_is_given_back_after_an_error_and_an_interrupt(claims, tmp_path):
    one = claims()
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), one.claim("x"):
            raise error
        assert not list((tmp_path / "claims").glob("*.claim"))
    one.close()
    assert not (tmp_path / "claims").exists()


@pytest.mark.parametrize(
    ("owner", "age", "expected"),
    [
        ({"machine": "here", "pid": "me", "started": "me"}, 10 * SILENCE, False),  # alive, however long it takes
        ({"machine": "here", "pid": "me", "started": "earlier"}, 0, True),  # its number has gone to another process
        ({"machine": "here", "pid": "dead", "started": "1"}, 0, True),
        ({"machine": "elsewhere", "pid": "me", "started": "me"}, SILENCE - 60, False),
        ({"machine": "elsewhere", "pid": "me", "started": "me"}, SILENCE + 60, True),
        ("{", 0, False),  # being written
        ("", SILENCE + 60, True),  # its owner died before it wrote its name
    ],
)
def test_whose_claim_is_stale(claims, tmp_path, owner, age, expected):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    if isinstance(owner, dict):
        owner["machine"] = machine() if owner["machine"] == "here" else owner["machine"]
        owner["pid"] = os.getpid() if owner["pid"] == "me" else dead.pid
        owner["started"] = started(os.getpid()) if owner["started"] == "me" else owner["started"]
    one = claims()
    with one.claim("x"):
        path = write(tmp_path / "claims", owner, age)
        assert stale(path) is expected
        with claims().claim("x") as taken:
            assert taken is expected
    assert stale(tmp_path / "no.claim") is False


def test_what_a_killed_process_claimed_goes_to_the_next_one(claims, tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from segkit.inference.claims import Claims
with Claims(Path({str(tmp_path / "claims")!r})).claim("x") as mine:
    print(mine, flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    one = claims()
    with one.claim("x") as mine:
        assert not mine
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert file_of(tmp_path / "claims")  # nobody cleaned up
    with one.claim("x") as mine:
        assert mine


def test_of_many_that_want_a_stale_claim_exactly_one_gets_it(claims, tmp_path):
    with claims().claim("x"):
        path = write(tmp_path / "claims", {"machine": machine(), "pid": 2**22 + 1, "started": "0"})
        won, ready, done = [], threading.Barrier(8), threading.Barrier(8)
        everyone = [claims() for _ in range(8)]
        for i, one in enumerate(everyone):
            one.owner = {**one.owner, "thread": i}

        def race(one):
            ready.wait()
            with one.claim("x") as mine:
                won.append(mine)
                done.wait()  # nobody gives it back before all have tried

        threads = [threading.Thread(target=race, args=(one,)) for one in everyone]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == [False] * 7 + [True]
        assert not path.exists()


def test_who_was_taken_for_dead_leaves_the_new_owners_claim_alone(claims, tmp_path):
    slow, other = claims(), {"machine": "elsewhere", "pid": 1, "started": "1"}
    with slow.claim("x"):
        path = write(tmp_path / "claims", other)
    assert json.loads(path.read_text()) == other


def test_a_claim_shows_signs_of_life(claims, tmp_path, monkeypatch):
    monkeypatch.setattr("segkit.inference.claims.BEAT", 0.01)
    one = claims()
    with one.claim("x"):
        path = file_of(tmp_path / "claims")
        os.utime(path, (0, 0))
        end = time.monotonic() + 5
        while path.stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.005)
        assert path.stat().st_mtime > 0
