"""The doctor on real data: found clean, then damaged in every way that can be planted; run with -m slow -s for the figures."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from segkit.data.findings import KINDS

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[2] / "scripts" / "check_data.py"


def check(root, out):
    """The real command's exit code, terminal and report."""
    command = [sys.executable, str(SCRIPT), "--data.root", str(root), "--data.crop", "256", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    report = json.loads((out / "report.json").read_text())
    return done, {group["kind"]: [finding["what"] for finding in group["found"]] for group in report["findings"]}, report


def test_camvid_damaged_in_every_way(shared, plant, tmp_path):
    root = tmp_path / "camvid"
    shutil.copytree(shared / "data" / "camvid", root)
    for file in root.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    done, before, _ = check(root, tmp_path / "before")
    assert done.returncode == 0, done.stderr
    print("\nundamaged:", {kind: len(found) for kind, found in before.items()})
    planted = plant(root, crop=256)
    done, after, report = check(root, tmp_path / "after")
    print(done.stdout)
    assert done.returncode == 1
    for kind, part in planted.items():
        assert any(part in what for what in after[kind]), kind
        assert KINDS[kind].remedy in done.stdout
    # what was planted, and the second split of an image with two masks, and what was there before
    expected = Counter(planted.keys()) + Counter(["leak"]) + Counter(kind for kind, found in before.items() for _ in found)
    counts = Counter({kind: len(found) for kind, found in after.items()})
    frames = {"near_duplicate", "near_leak", "unscored"}  # a planted frame resembles its neighbours; new classes lack in some splits
    assert {kind: n for kind, n in counts.items() if kind not in frames} == {kind: n for kind, n in expected.items() if kind not in frames}
    print(f"{len(planted)} kinds planted, all found; {report['images_per_second']} images/s in the damaged copy")
