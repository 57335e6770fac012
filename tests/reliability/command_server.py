"""Runs commands as a process each, of which the libraries are imported once: a line of JSON in, `{"words": ..., "cwd": ...}`, and one out.

A fork of this process is a command: it has an exit code, output and memory of its own, and may crash without taking others along.
"""

import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from importlib import import_module
from pathlib import Path

LIBRARIES = ("segkit.task", "segkit.trainer", "segkit.callbacks", "segkit.data.module", "segkit.tracking", "segkit.inference.model")
LIBRARIES += ("segkit.cli.scoring", "segkit.export.write", "onnxruntime", "tifffile", "cv2", "PIL.Image")


def child(words, cwd, memory, limit, streams):
    """One command, as its script runs it; never returns."""
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream.fileno(), number)
        os.chdir(cwd)
        signal.alarm(limit)  # whose default ends the process
        if memory:  # MiB more than there are now
            used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            resource.setrlimit(resource.RLIMIT_AS, (used + memory * 2**20,) * 2)
        sys.argv = [f"{words[0]}.py", *words[1:]]
        if words[0] == "python":
            exec(words[1], {"__name__": "__main__"})
        else:
            import_module("segkit.cli.running").run(import_module(f"segkit.cli.{words[0]}").main)
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 0 if leave.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(words, cwd=".", memory=None, limit=60):
    with open(os.devnull) as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if not pid:
            child(words, cwd, memory, limit, (nothing, out, err))
        _, status, usage = os.wait4(pid, 0)
        texts = [(stream.seek(0), stream.read().decode(errors="replace"))[1] for stream in (out, err)]
    return {
        "words": words,
        "code": os.waitstatus_to_exitcode(status),  # -11: killed by signal 11; -14: more than `limit` seconds
        "out": texts[0],
        "err": texts[1],
        "mib": usage.ru_maxrss // 1024,
        "seconds": usage.ru_utime + usage.ru_stime,
    }


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    for library in LIBRARIES:
        import_module(library)
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)
