"""`segkit.cli.benchmark` as a script; finds segkit beside this folder, installed or not."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from segkit.cli.benchmark import main
from segkit.cli.parsing import run

if __name__ == "__main__":
    run(main)
