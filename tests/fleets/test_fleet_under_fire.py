"""Kills and scaling of a fleet on Ray under load: minutes, so not in CI; see ``benchmarks/fleet.py``."""

import os
import subprocess
import sys

import pytest
from fleet_setup import has_ray
from live_server import ROOT

pytestmark = [
    pytest.mark.skipif(not has_ray(), reason="Ray Serve is not installed (requirements-fleet.txt), or this is not Linux"),
    pytest.mark.skipif(not os.environ.get("KEEPWARM_FLEET"), reason="takes minutes and two gigabytes; KEEPWARM_FLEET=1 runs it"),
    pytest.mark.timeout(3600),
    pytest.mark.slow,
]


@pytest.mark.parametrize("arguments", [["--check"], ["--kills", "10"], ["--scale"]], ids=" ".join)
def test_what_the_benchmark_promises(arguments):
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "fleet.py"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
