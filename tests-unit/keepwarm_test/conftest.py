"""Places that results are kept in: a folder, a real Redis server, and S3 as moto's server speaks it."""

import pytest
from store_servers import BUCKET, running_redis, running_s3


@pytest.fixture(scope="module")
def redis_server():
    with running_redis() as server:
        yield server


@pytest.fixture(scope="module")
def s3_server():
    with running_s3() as endpoint:
        yield endpoint


@pytest.fixture(params=["file", "redis", "s3"])
def url(request, tmp_path, monkeypatch):
    if request.param == "file":
        return f"file://{tmp_path}/store?max_value_mb=64"
    if request.param == "redis":
        return f"redis://127.0.0.1:{request.getfixturevalue('redis_server').port}?prefix={tmp_path.name}&max_value_mb=64"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    endpoint = request.getfixturevalue("s3_server")
    return f"s3://{BUCKET}/{tmp_path.name}?endpoint={endpoint}&region=us-east-1&max_value_mb=64"
