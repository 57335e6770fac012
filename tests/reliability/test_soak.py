"""Half an hour of training with loader processes, validation, panels and tracking: what it holds must not grow."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def family(pid):
    """The process and all that it has started, and what these have."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += family(int(child))
    return found


def memory(pids):
    """The proportional share of memory of some processes together, in MB: pages that several share count once."""
    text = "".join(Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids)
    return sum(int(size) for size in re.findall(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)) / 1024


def descriptors(pids):
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's account of memory")
def test_memory_and_descriptors_stay(lab):
    minutes = float(os.environ.get("SOAK_MINUTES", "30"))
    shared_before = set(os.listdir("/dev/shm"))
    words = [word for word in " ".join(lab.tiny).replace("--wandb.mode disabled --wandb.panels 0", "--wandb.mode offline").split()]
    words += [
        "--data.workers",
        "2",
        "--trainer.max_steps",
        "10000000",
        "--trainer.val_every",
        "50",
        "--trainer.log_every",
        "1",
        "--ema",
        "0.9",
    ]
    with Path("log.txt").open("w") as log:
        process = subprocess.Popen([sys.executable, str(ROOT / "scripts/train.py"), *words], stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not list(Path().glob("runs/*/*/checkpoints/last.ckpt")) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.2)
        start, samples = time.monotonic(), []
        try:
            while (passed := time.monotonic() - start) < 60 * minutes:
                pids = family(process.pid)
                samples.append((passed / 60, memory(pids), descriptors(pids), len(pids), memory(pids[:1])))
                time.sleep(min(10, minutes))
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
    assert code == 143, Path("log.txt").read_text()[-2000:]
    time.sleep(6)
    record = np.array(samples)
    later = record[record[:, 0] > minutes / 6]  # caches and pools are full by then
    slope, own = (np.polyfit(later[:, 0], later[:, column], 1)[0] for column in (1, 4))
    counts = later[:, 2]
    steps = len(next(iter(Path().glob("runs/*/*/metrics.csv"))).read_text().splitlines()) - 1
    print(
        f"{minutes:g} minutes, {steps} steps, {steps // 50} validations: {later[0, 1]:.0f} to {later[-1, 1]:.0f} MB, "
        f"slope {slope:.3f} MB a minute, {own:.3f} of them of the process that trains; "
        f"{counts.min():.0f} to {counts.max():.0f} descriptors; {later[:, 3].min():.0f} to {later[:, 3].max():.0f} processes"
    )
    assert slope < 1
    assert abs(counts[len(counts) // 2 :].mean() - counts[: len(counts) // 2].mean()) < 2  # batches on their way come and go
    assert set(os.listdir("/dev/shm")) <= shared_before
