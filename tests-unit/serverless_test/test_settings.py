"""The environment's names and what they mean."""

import re
import time

import pytest

from serverless.result_storage import BucketSettings, ResultStorage, StorageError, region_of
from serverless.settings import BadSetting, WorkerSettings


def test_defaults_are_the_predecessors():
    settings = WorkerSettings.from_environment({})
    assert settings == WorkerSettings()
    assert settings.base_url == "http://127.0.0.1:8188"
    assert (settings.reconnect_attempts, settings.reconnect_delay_s) == (5, 3.0)
    assert (settings.available_interval_s, settings.available_retries) == (0.05, 0)
    assert settings.client_id and not settings.refresh_worker and settings.bucket is None


def test_every_variable_is_read():
    settings = WorkerSettings.from_environment(
        {
            "COMFY_HOST": "https://host:1/",
            "COMFY_CLIENT_ID": "me",
            "COMFY_ORG_API_KEY": "key",
            "REFRESH_WORKER": "True",
            "KEEPWARM_JOB_TIMEOUT_S": "9",
            "KEEPWARM_POLL_INTERVAL_S": "0.5",
            "WEBSOCKET_RECONNECT_ATTEMPTS": "2",
            "WEBSOCKET_RECONNECT_DELAY_S": "1",
            "WEBSOCKET_TRACE": "1",
            "COMFY_API_AVAILABLE_INTERVAL_MS": "10",
            "COMFY_API_AVAILABLE_MAX_RETRIES": "7",
            "COMFY_PID_FILE": "/x",
            "NETWORK_VOLUME_DEBUG": "yes",
            "KEEPWARM_NORMALIZE": "false",
            "BUCKET_ENDPOINT_URL": "https://e",
            "BUCKET_ACCESS_KEY_ID": "id",
            "BUCKET_SECRET_ACCESS_KEY": "secret",
            "BUCKET_NAME": "b",
            "BUCKET_PREFIX": "/p/",
            "BUCKET_REGION": "r",
            "BUCKET_URL_EXPIRES_S": "60",
        }
    )
    assert settings == WorkerSettings(
        "https://host:1/",
        "me",
        "key",
        True,
        9.0,
        0.5,
        2,
        1.0,
        True,
        0.01,
        7,
        "/x",
        True,
        False,
        BucketSettings("https://e", "id", "secret", "b", "p", "r", 60),
    )
    assert settings.base_url == "https://host:1"


def test_empty_variables_count_as_not_set():
    empty = {"COMFY_HOST": " ", "REFRESH_WORKER": "", "WEBSOCKET_RECONNECT_ATTEMPTS": ""}
    assert WorkerSettings.from_environment(empty) == WorkerSettings()


@pytest.mark.parametrize(
    "environment", [{"WEBSOCKET_RECONNECT_DELAY_S": "soon"}, {"KEEPWARM_JOB_TIMEOUT_S": "-1"}, {"KEEPWARM_POLL_INTERVAL_S": "0"}]
)
def test_nonsense_is_refused(environment):
    with pytest.raises(BadSetting):
        WorkerSettings.from_environment(environment)


def test_without_a_name_the_bucket_is_named_after_month_and_year():
    settings = WorkerSettings.from_environment({"BUCKET_ENDPOINT_URL": "https://e"})
    assert settings.bucket is not None and settings.bucket.name == time.strftime("%m-%y")


@pytest.mark.parametrize(
    "url, region",
    [
        ("https://my-bucket.s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("https://s3.us-west-004.backblazeb2.com", "us-west-004"),
        ("https://nyc3.digitaloceanspaces.com", "nyc3"),
        ("https://space.nyc3.digitaloceanspaces.com", "nyc3"),
        ("https://account.r2.cloudflarestorage.com", "us-east-1"),
        ("http://127.0.0.1:9000", "us-east-1"),
        ("https://s3.amazonaws.com", "us-east-1"),
    ],
)
def test_the_region_comes_from_the_host(url, region):
    assert region_of(url) == region


@pytest.mark.parametrize(
    "key_id, secret, url, part",
    [("", "s", "https://e", "BUCKET_ACCESS_KEY_ID"), ("k", "", "https://e", "BUCKET_SECRET_ACCESS_KEY"), ("k", "s", "here", "not a URL")],
)
def test_an_incomplete_bucket_is_an_error_and_never_a_made_up_path(key_id, secret, url, part):
    with pytest.raises(StorageError, match=part):
        ResultStorage(BucketSettings(url, key_id, secret, "name"))


def test_objects_get_keys_with_the_prefix_and_the_job():
    pytest.importorskip("obstore")
    plain = ResultStorage(BucketSettings("https://e", "k", "s", "name"))
    assert re.fullmatch(r"job/[0-9a-f]{8}\.jpg", plain.key("job", "x.jpg")) and plain.key("job", "x").endswith(".png")
    assert ResultStorage(BucketSettings("https://e", "k", "s", "name", "pre")).key("job", "x.jpg") == "pre/job/x.jpg"
