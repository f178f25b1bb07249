"""What environments of a pool need is installed and importable beside jax."""

from __future__ import annotations

import subprocess
import sys


def test_envpool_imports_and_knows_atari():
    code = "import envpool; print('Pong-v5' in envpool.list_all_envs())"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True"], done.stderr
