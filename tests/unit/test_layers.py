"""The house stands as it is drawn."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_floor_rests_on_those_below_it() -> None:
    """The import contracts of pyproject.toml hold: layers, and no I/O in the pure core."""
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
