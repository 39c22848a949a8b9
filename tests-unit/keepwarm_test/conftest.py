"""Places that results are kept in: a folder, a real Redis server, and S3 as moto's server speaks it."""

import shutil
import subprocess
import sys
import urllib.request

import pytest
from store_servers import Redis, free_port, wait_for_port


@pytest.fixture(scope="module")
def redis_server():
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Redis()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3_server():
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for_port(port, process)
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT"), timeout=20).close()
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture(params=["file", "redis", "s3"])
def url(request, tmp_path, monkeypatch):
    if request.param == "file":
        return f"file://{tmp_path}/store?max_value_mb=64"
    if request.param == "redis":
        return f"redis://127.0.0.1:{request.getfixturevalue('redis_server').port}?prefix={tmp_path.name}&max_value_mb=64"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    endpoint = request.getfixturevalue("s3_server")
    return f"s3://bucket/{tmp_path.name}?endpoint={endpoint}&region=us-east-1&max_value_mb=64"
