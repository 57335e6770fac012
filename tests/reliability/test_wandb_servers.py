"""Promise 10, W&B: whatever its server does, the run ends normally, at most a minute later, with everything in its folder and no key."""

import gc
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import pytest

from segkit import tracking, wandb_service
from segkit.config import WandbConfig
from segkit.errors import RunFailed, RunStopped

ROOT = Path(__file__).parents[2]
KEY = "5ec2e7c0de" * 4
STEPS = 120
TRAIN = f"""--decoder_channels [8,8] --data.batch_size 2 --data.crop 32 --data.scenes_size 48 --data.scenes_train 6 --data.scenes_val 3
--data.scenes_test 2 --trainer.accelerator cpu --trainer.devices 1 --wandb.panels 2 --trainer.log_every 1
--trainer.max_steps {STEPS} --trainer.val_every {STEPS // 2}""".split()


class Server(ThreadingHTTPServer):
    """A stand-in for W&B's server on the loopback.

    `how` is what it does: "works"; "silent" never answers a word; a number is the status of every answer; "dies" closes all connections and
    the port when it is told to `strike`, "hangs" answers no more from then on.
    """

    daemon_threads = True

    def __init__(self, how):
        super().__init__(("127.0.0.1", 0), Handler)
        self.how, self.over, self.struck, self.requests = how, threading.Event(), threading.Event(), 0
        self.connections, self.address = [], f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def get_request(self):
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def handle_error(self, request, client_address):
        """Says nothing: that connections break is what is tested."""

    def strike(self):
        self.struck.set()
        if self.how == "dies":
            self.die()

    def die(self):
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed already
                continue

    def __exit__(self, *args):
        self.over.set()
        self.die()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self):
        server = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server.requests += 1
        if isinstance(server.how, int):
            return self.say({"errors": [{"message": "the fake server's word"}]}, server.how)
        if server.how == "silent" or (server.how == "hangs" and server.struck.is_set()):
            return server.over.wait()
        return self.say(self.data(json.loads(body)) if self.path == "/graphql" else {})

    do_GET = do_POST = do_PUT = answer

    def data(self, request):
        query, given = request["query"], request.get("variables") or {}
        entity, project = {"id": "e", "name": "house"}, given.get("project") or "segkit"
        found = {}
        if "upsertBucket" in query:
            bucket = {"id": "b", "name": given["name"], "displayName": given["name"], "config": "{}", "historyLineCount": 0}
            found = {"upsertBucket": {"inserted": True, "bucket": {**bucket, "project": {"id": "p", "name": project, "entity": entity}}}}
        elif "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.server.address}/put/{name}"} for name in given["files"]]
            found = {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        elif "viewer" in query:
            found = {"viewer": {"id": "v", "entity": "house", "username": "u", "email": "", "flags": "{}", "teams": {"edges": []}}}
        return {"data": found}

    def say(self, words, status=200):
        body = json.dumps(words).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def leaks(folder):
    return [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.fixture
def account(tmp_path, monkeypatch):
    """Sets a key and a server's address in this process, and leaves nothing of wandb behind."""
    os.environ.pop("WANDB_SERVICE", None)  # for good: the process that it names ends with this test
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    if wandb := sys.modules.get("wandb"):  # which keeps what it has read of the environment before
        wandb.teardown()
    yield lambda server: monkeypatch.setenv("WANDB_BASE_URL", server.address)
    if wandb := sys.modules.get("wandb"):
        wandb.teardown()


@pytest.mark.parametrize("how", ["dies", "hangs"])
def test_a_server_that_goes_away_blocks_neither_steps_nor_the_end(tmp_path, monkeypatch, caplog, account, how):
    monkeypatch.setattr(tracking, "TABLE_SECONDS", 0.5)
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 1.0)
    folder = tmp_path / "run"
    folder.mkdir()
    with Server(how) as server:
        account(server)
        loggers, line = tracking.build_loggers(WandbConfig(), folder, "x", {}, [], False)
        assert line.startswith("online: http://127.0.0.1"), line
        loggers[1].log_metrics({"a": 0}, 0)
        server.strike()
        start = time.monotonic()
        for step in range(1, 400):
            loggers[1].log_metrics({"a": step}, step)
        logged = time.monotonic() - start
        tracking.log_table(loggers, "table", ["class"], [["sky"]], {"miou": 0.5})
        with caplog.at_level(logging.WARNING):
            tracking.finish(loggers)
        ended = time.monotonic() - start
    assert logged < 5, logged
    assert ended < 15, ended
    (run,) = folder.glob("wandb/run-*")
    assert f"send it later with: wandb sync {run}" in caplog.text
    (kept,) = run.glob("*.wandb")
    assert b'"miou"' in kept.read_bytes() or b"miou" in kept.read_bytes()
    assert leaks(tmp_path) == []


def test_a_key_that_is_refused_is_said_at_once_and_the_run_is_kept(tmp_path, account):
    with Server(401) as server:
        account(server)
        start = time.monotonic()
        loggers, line = tracking.build_loggers(WandbConfig(), tmp_path, "x", {}, [], False)
        tracking.finish(loggers)
        assert time.monotonic() - start < tracking.INIT_SECONDS
    assert line.startswith("online failed (the fake server's word), so offline; sync with: wandb sync ")
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert leaks(tmp_path) == []


@pytest.fixture
def reaped():
    """wandb's own processes that a test has ended are waited for, which wandb leaves out."""
    yield
    for found in gc.get_objects():
        if type(found) is subprocess.Popen and "wandb-core" in str(found.args):
            found.wait(10)


@pytest.mark.usefixtures("reaped")
def test_a_signal_waits_for_no_server_and_all_that_was_logged_is_in_wandbs_file(tmp_path, caplog, account):
    folder = tmp_path / "run"
    folder.mkdir()
    with Server("hangs") as server:
        account(server)
        loggers, line = tracking.build_loggers(WandbConfig(), folder, "x", {}, [], False)
        assert line.startswith("online: http://127.0.0.1"), line
        server.strike()
        start = time.monotonic()
        for step in range(50):
            loggers[1].log_metrics({"seen": step}, step)
        with pytest.raises(RunStopped), tracking.tracked(loggers), caplog.at_level(logging.WARNING):
            raise RunStopped("stopped", signal.SIGTERM)
        sys.modules["wandb"].teardown()  # as at the end of the process
        assert time.monotonic() - start < 10
    (run,) = folder.glob("wandb/run-*")
    assert f"W&B: not all was uploaded (no answer within 3 s); send it later with: wandb sync {run}" in caplog.text
    (kept,) = run.glob("*.wandb")
    assert kept.read_bytes().count(b"seen") >= 50


@pytest.mark.usefixtures("reaped")
def test_a_signal_amid_a_start_that_hangs_ends_it(tmp_path, account):
    def leave(number, frame):
        sys.exit(143)

    import_module("wandb")  # which takes a while
    before = signal.signal(signal.SIGALRM, leave)
    try:
        with Server("silent") as server:
            account(server)
            start = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 3)
            with pytest.raises(SystemExit):
                tracking.build_loggers(WandbConfig(), tmp_path, "x", {}, [], False)
            assert "WANDB_SERVICE" not in os.environ
            sys.modules["wandb"].teardown()  # as at the end of the process
            assert 3 <= time.monotonic() - start < 3 + 10 < tracking.INIT_SECONDS
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_process_of_wandb_that_waits_for_its_server_when_it_is_asked_to_end_is_killed(tmp_path):
    program = tmp_path / "wandb-core"
    program.write_text("#!/bin/sh\ntrap '' TERM\necho ready\nwhile :; do sleep 0.1; done\n")
    program.chmod(0o700)
    with subprocess.Popen([program], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\n"
        start = time.monotonic()
        wandb_service.end_service()
        assert child.wait(10) == -signal.SIGKILL
        assert wandb_service.ASKED_SECONDS <= time.monotonic() - start < 10


def test_the_table_of_a_run_takes_a_class_that_is_absent(lab, serve, tmp_path):
    words = [word for word in lab.tiny if word not in ("--wandb.mode", "disabled")]
    done = serve("train", *words, "--trainer.max_steps", 1, "--data.scenes_val", 1, "--wandb.mode", "offline", "--name", "a", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    run = lab.run("a")
    assert None in json.loads((run / "metrics.json").read_text())["iou"].values()
    (table,) = run.glob("wandb/offline-run-*/files/media/table/val/*.json")
    assert None in [row[1] for row in json.loads(table.read_text())["data"]]


def test_a_run_that_fails_ends_in_wandb_as_failed(account, tmp_path):
    with Server("works") as server:
        account(server)
        loggers, _ = tracking.build_loggers(WandbConfig(), tmp_path, "x", {}, [], False)
        with pytest.raises(RunFailed), tracking.tracked(loggers):
            raise RunFailed("not finite")
        assert loggers[1].inner.experiment._exit_code == 1
    assert leaks(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_while_a_server_hangs_ends_the_run_in_time(tmp_path, number):
    struck = []

    def strike():
        server.strike()
        struck.append(time.monotonic())
        process.send_signal(number)

    with Server("hangs") as server:
        process = start(tmp_path, WANDB_BASE_URL=server.address, WANDB_API_KEY=KEY)
        amid(tmp_path, strike)
        _, errors = process.communicate(timeout=60)
        seconds = time.monotonic() - struck[0]
    print(f"{number.name} while the server hangs: exit {process.returncode} after {seconds:.1f} s: {errors.strip()}")
    assert process.returncode == 128 + number
    assert seconds < 10
    upload, end = errors.splitlines()
    assert "send it later with: wandb sync runs/" in upload
    assert f"stopped by {number.name} at step" in end
    (run,) = tmp_path.glob("runs/*/*")
    (kept,) = run.glob("wandb/run-*/*.wandb")
    assert kept.read_bytes().count(b"train/loss") >= len((run / "metrics.csv").read_text().splitlines()) - 1


def test_all_that_a_server_may_cost_is_less_than_a_minute():
    assert tracking.INIT_SECONDS + tracking.TABLE_SECONDS + tracking.FINISH_SECONDS <= 40


def start(folder, **environment):
    """A training by the real command with a home of its own, as a process."""
    for name in ("home", "tmp"):
        (folder / name).mkdir(parents=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    env |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, str(ROOT / "scripts/train.py"), *TRAIN, "--runs", "runs"]
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def train(folder, **environment):
    """Trains; returns what the command did, and the seconds it took."""
    begin = time.monotonic()
    process = start(folder, **environment)
    out, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, errors), time.monotonic() - begin


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """Seconds of the same run without W&B."""
    done, seconds = train(tmp_path_factory.mktemp("without"), WANDB_MODE="disabled")
    assert done.returncode == 0, done.stderr
    return seconds


@pytest.mark.slow
@pytest.mark.parametrize("how", ["no key", "refused", "silent", 500, 429, 401, "dies", "hangs", "service dies", "works"])
def test_a_run_ends_normally_whatever_the_server_does(tmp_path, without, how):
    with Server("works" if how == "service dies" else how) as server:
        env = {"WANDB_BASE_URL": server.address}
        if how == "hangs":  # the other place for a key, here outside the folders in which it must not be found again
            netrc = tmp_path.with_name("netrc")
            netrc.write_text(f"machine {server.address.removeprefix('http://')} login user password {KEY}")
            env |= {"NETRC": str(netrc)}
        elif how != "no key":
            env |= {"WANDB_API_KEY": KEY}
        if how == "refused":
            server.die()
        end = {"service dies": lambda: end_service(tmp_path), "dies": server.strike, "hangs": server.strike}.get(how, lambda: None)
        threading.Thread(target=amid, args=(tmp_path, end), daemon=True).start()
        done, seconds = train(tmp_path, **env)
        requests, struck = server.requests, server.struck.is_set()
    print(f"{how}: exit {done.returncode}, {seconds - without:.1f} s more than the {without:.1f} s without W&B, {requests} requests")
    print("  ", *[line for line in done.stdout.splitlines() if line.startswith("W&B")], done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert seconds < without + 60
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2, done.stderr  # a table, and the end
    (run,) = tmp_path.glob("runs/*/*")
    rows = (run / "metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, STEPS + 1))
    assert len(list((run / "panels").iterdir())) == 2
    assert (run / "metrics.json").exists()
    # an attempt that failed leaves a folder too, in which there is only the run's name
    (kept,) = list(run.glob("wandb/offline-run-*/*.wandb")) or run.glob("wandb/run-*/*.wandb")
    content = kept.read_bytes()
    if how != "service dies":
        assert len(re.findall(rb"train/loss", content)) >= STEPS  # all that the server did not take can be sent by `wandb sync`
    assert int((tmp_path / "rows").read_text()) < STEPS
    if how in ("dies", "hangs"):
        assert struck
        assert f"wandb sync {kept.parent.relative_to(tmp_path)}" in done.stderr
    if how not in ("dies", "hangs", "service dies", "works"):
        assert "offline; sync with: wandb sync" in done.stdout
    assert leaks(tmp_path) == []
    assert KEY not in done.stdout + done.stderr


def amid(folder, act):
    """Acts when the run below `folder` has done some of its steps."""
    while not [path for path in folder.glob("runs/*/*/metrics.csv") if len(path.read_text().splitlines()) > STEPS // 10]:
        time.sleep(0.05)
    act()
    (table,) = folder.glob("runs/*/*/metrics.csv")
    (folder / "rows").write_text(str(len(table.read_text().splitlines()) - 1))


def end_service(folder):
    """Ends the process of wandb that writes and uploads, of the run whose folder lies below `folder`."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, environment = (process / "comm").read_text().strip(), (process / "environ").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if name.startswith("wandb-core") and f"TMPDIR={folder / 'tmp'}".encode() in environment:
            os.kill(int(process.name), 9)
