"""A gateway before two real servers, each with one of the starter checkpoints."""

import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from gateway_process import LiveGateway  # noqa: E402
from live_server import ROOT, LiveServer  # noqa: E402
from model_workflows import STARTERS, checkpoints  # noqa: E402


@pytest.fixture(scope="package")
def two_servers(tmp_path_factory):
    """Servers whose model folders differ."""
    started = []
    for name in STARTERS:
        server = LiveServer(tmp_path_factory.mktemp("server"), "--preview-method", "latent2rgb")
        shutil.copy(ROOT / "models" / "checkpoints" / name, checkpoints(server) / name)
        started.append(server)
    yield started
    for server in started:
        server.stop()


@pytest.fixture(scope="package")
def gateway(two_servers, tmp_path_factory):
    """The gateway that all tests share which need no flags of their own."""
    live = LiveGateway(tmp_path_factory.mktemp("gateway"), two_servers)
    yield live
    live.stop()
