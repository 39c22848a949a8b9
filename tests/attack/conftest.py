"""What every area of the attack shares: its seed, its time, its report, and a server that is watched while it is attacked.

Tests marked ``attack`` run only when they are asked for (``./test.sh tests/attack -m attack``, ten minutes), and so do those marked
``memory_rows`` (real-size models under memory limits, twenty minutes and 12 GB); those without a mark are the fast part that always runs.
``KEEPWARM_ATTACK_SEED`` repeats a run, ``KEEPWARM_ATTACK_SECONDS`` (default 35) is the time of an area.
"""

import os
import pathlib
import random
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from attack_report import AttackReport  # noqa: E402
from watched_server import WatchedServer  # noqa: E402

FAST_SECONDS = 3.0


def pytest_configure(config):
    config.stash[REPORT] = AttackReport(int(os.environ.get("KEEPWARM_ATTACK_SEED") or random.SystemRandom().randrange(1 << 32)))


def pytest_collection_modifyitems(config, items):
    asked = config.option.markexpr or ""
    for mark in ("attack", "memory_rows"):
        if mark in asked:
            continue
        for item in items:
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=f"runs only when asked for: -m {mark}"))


def pytest_terminal_summary(terminalreporter, config):
    report = config.stash[REPORT]
    if report.results:
        terminalreporter.section("attack")
        terminalreporter.write_line(report.table())


REPORT = pytest.StashKey[AttackReport]()


@pytest.fixture
def report(request):
    """The figures of all areas of this run."""
    return request.config.stash[REPORT]


@pytest.fixture
def dice(report, request):
    """Random numbers that are the same for the same seed and test; the seed is in the report."""
    return random.Random(f"{report.seed}-{request.node.name}")


@pytest.fixture
def seconds(request):
    """How long an area may attack: short in the fast part."""
    if request.node.get_closest_marker("attack") is None:
        return FAST_SECONDS
    return float(os.environ.get("KEEPWARM_ATTACK_SECONDS") or 35)


@pytest.fixture
def attacked(start_server, report):
    """``attacked("area", *flags)``: a server of its own; ``with server.watch() as watch:`` around the attack."""

    def start(area, *flags, **more):
        return WatchedServer(start_server(*flags, name=area, **more), area, report)

    return start
