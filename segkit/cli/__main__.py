"""`python -m segkit.cli COMMAND ...`: the scripts, wherever segkit is installed."""

import sys
from importlib import import_module

from segkit.cli.running import run

COMMANDS = ("check_data", "train", "eval", "predict", "export", "ablate", "visualize", "benchmark")

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"segkit: error: give a command: {', '.join(COMMANDS)}")
    sys.argv[:2] = [f"{sys.argv[1]}.py"]
    run(import_module(f"segkit.cli.{sys.argv[0].removesuffix('.py')}").main)
