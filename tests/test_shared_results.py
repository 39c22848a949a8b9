"""Servers that share results through a folder, a Redis server and an S3 server: everything is real, on this machine."""

import signal
import subprocess
import sys
import urllib.error

import pytest
from live_server import ROOT
from result_places import CHECKPOINT, change_one_tensor, light_workflow, picture_workflow, pixels, place_checkpoint

pytest.importorskip("torch")


def hash_seed(url, seed):
    """A start with a hash seed of its own, once: it says something about keys, whatever place they go to."""
    return {"PYTHONHASHSEED": seed} if url.startswith("file:") else None


def test_a_workflow_run_on_one_server_is_served_to_another_until_a_tensor_differs(start_server, tmp_path, checkpoint, url):
    for name in ("first", "second"):
        place_checkpoint(tmp_path / name, checkpoint)
    first = start_server("--cache-provider", url, name="first", environment=hash_seed(url, "1"))
    made = first.run(picture_workflow(), 120)
    assert sorted(made.executed) == sorted(picture_workflow())
    second = start_server("--cache-provider", url, name="second", environment=hash_seed(url, "2"))
    served = second.run(picture_workflow(), 120)
    assert served.executed == ["save"] and served.of_type("execution_cached")[0]["nodes"] == ["decode"]
    assert pixels(served.file_bytes()) == pixels(made.file_bytes())
    (numbers,) = second.get("/caches")["results"]["providers"]
    assert (numbers["hits"], numbers["misses"], numbers["state"]) == (1, 0, "closed")
    assert numbers["bytes_fetched"] == 64 * 64 * 3 * 4
    second.stop()
    change_one_tensor(tmp_path / "second" / "models" / "checkpoints" / CHECKPOINT)
    again = start_server("--cache-provider", url, name="second", environment=hash_seed(url, "3"))
    recomputed = again.run(picture_workflow(), 120)
    assert {"model", "yes", "no", "sample", "decode", "save"} <= set(recomputed.executed)
    assert pixels(recomputed.file_bytes()) != pixels(made.file_bytes())


def test_another_picture_under_the_same_name_is_another_result(start_server, tmp_path):
    pil = pytest.importorskip("PIL.Image")
    prompt = {
        "image": {"class_type": "LoadImage", "inputs": {"image": "in.png"}},
        "inverted": {"class_type": "ImageInvert", "inputs": {"image": ["image", 0]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["inverted", 0], "filename_prefix": "shared"}},
    }
    runs = {}
    for name, color in (("first", "red"), ("same", "red"), ("other", "blue")):
        server = start_server("--cache-provider", f"file://{tmp_path}/shared", name=name)
        pil.new("RGB", (16, 16), color).save(server.base / "input" / "in.png")
        runs[name] = server.run(prompt)
    assert runs["same"].executed == ["save"] and runs["other"].executed == ["image", "inverted", "save"]


def test_stores_are_finished_at_shutdown(start_server, tmp_path):
    server = start_server("--cache-provider", f"file://{tmp_path}/shared", name="one")
    server.run(light_workflow())
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert start_server("--cache-provider", f"file://{tmp_path}/shared", name="two").run(light_workflow()).executed == ["save"]


def test_namespaces_are_apart(start_server, tmp_path):
    url = f"file://{tmp_path}/shared"
    start_server("--cache-provider", url, "--cache-namespace", "a", name="one").run(light_workflow())
    other = start_server("--cache-provider", url, "--cache-namespace", "b", name="two")
    assert len(other.run(light_workflow()).executed) == 4


def test_caches_shows_the_providers_numbers(start_server, redis):
    url = f"redis://127.0.0.1:{redis.port}"
    server = start_server("--cache-provider", url)
    server.run(light_workflow(1))
    (first,) = server.get("/caches")["results"]["providers"]
    size = 64 * 48 * 3 * 4
    assert (first["name"], first["hits"], first["misses"], first["errors"], first["timeouts"], first["stores"]) == (url, 0, 3, 0, 0, 3)
    assert (first["state"], first["queued"], first["queued_bytes"], first["not_stored"]) == ("closed", 0, 0, 0)
    assert first["bytes_stored"] == 2 * size + 100 * 70 * 3 * 4 and first["bytes_fetched"] == 0
    assert 0 < first["lookup_p50_s"] <= first["lookup_p95_s"] < 3
    redis.stop()
    server.run(light_workflow(2))
    (second,) = server.get("/caches")["results"]["providers"]
    assert second["errors"] >= 3 and second["state"] == "open" and second["misses"] == 3


def test_the_pack_tells_its_numbers(start_server, tmp_path):
    pytest.importorskip("prometheus_client")
    server = start_server("--cache-provider", f"file://{tmp_path}/shared", environment={"KEEPWARM_METRICS": "1"})
    server.run(light_workflow())
    (one,) = server.get("/keepwarm/caches")["providers"]
    assert one["url"] == f"file://{tmp_path}/shared" and one["misses"] == 3
    text = server.get_bytes("/keepwarm/metrics").decode()
    assert f'keepwarm_cache_misses_total{{provider="file://{tmp_path}/shared"}} 3.0' in text
    assert f'keepwarm_cache_lookup_seconds{{provider="file://{tmp_path}/shared",quantile="0.95"}}' in text


@pytest.mark.parametrize("setting", [{}, {"KEEPWARM_METRICS": "0"}])
def test_metrics_are_off_unless_switched_on(start_server, tmp_path, setting):
    server = start_server("--cache-provider", f"file://{tmp_path}/shared", environment=setting)
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.get_bytes("/keepwarm/metrics")
    assert refused.value.code == 404 and server.get("/keepwarm/caches")["providers"]


@pytest.mark.parametrize(
    "flags, advice",
    [
        (["--cache-provider", "ftp://x"], "file://"),
        (["--cache-provider", "redis://user:secret@host"], "KEEPWARM_REDIS_PASSWORD"),
        (["--cache-provider", "redis://user:se/secret@host"], "KEEPWARM_REDIS_PASSWORD"),
        (["--cache-provider", "redis://host?password=secret"], "no option"),
        (["--cache-provider", "s3://b?endpoint=http://user:secret@host"], "AWS_SECRET_ACCESS_KEY"),
        (["--cache-provider", "file:///tmp/x?mode=wo"], "mode"),
        (["--cache-provider", "file:///tmp/x", "--disable-all-custom-nodes"], "--whitelist-custom-nodes keepwarm"),
    ],
)
def test_an_unusable_provider_stops_the_start_with_advice(tmp_path, flags, advice):
    command = [sys.executable, str(ROOT / "main.py"), "--base-directory", str(tmp_path), "--cpu", "--quick-test-for-ci", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode not in (0, None)
    assert advice in done.stderr + done.stdout and "secret" not in done.stderr + done.stdout


def test_a_mode_that_keeps_nothing_says_that_results_are_not_shared(tmp_path):
    command = [
        sys.executable,
        str(ROOT / "main.py"),
        "--base-directory",
        str(tmp_path),
        "--cpu",
        "--quick-test-for-ci",
        "--cache-none",
        "--cache-provider",
        f"file://{tmp_path}/shared",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    assert "neither fetched from cache providers nor stored" in done.stderr + done.stdout
