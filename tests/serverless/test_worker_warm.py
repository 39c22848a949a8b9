"""Twenty jobs of one workflow: the first is cold, the others read nothing and run only what depends on the seed."""

import random
import statistics

import pytest
from live_server import LiveServer
from model_workflows import with_starters, workflow
from worker_process import WorkerProcess

SEEDED = {"positive", "sample", "decode", "save"}
WORKER_MEDIAN_S = 0.05


@pytest.fixture(scope="module")
def warm_worker(tmp_path_factory):
    """A worker for a server that keeps models in RAM."""
    pytest.importorskip("runpod", reason="the worker's tests run through RunPod's SDK: pip install -r requirements-runpod.txt")
    folder = tmp_path_factory.mktemp("warm")
    server = with_starters(LiveServer(folder / "server", "--ram-model-cache-mb", "1000"))
    process = WorkerProcess(folder, f"127.0.0.1:{server.port}")
    yield process
    process.stop()
    server.stop()


def shuffled(plain, rng):
    """A workflow under random ids, nodes and inputs in random order: (workflow, the names behind the ids)."""
    names = dict(zip(plain, (str(number) for number in rng.sample(range(1000), len(plain)))))
    nodes = []
    for name, content in plain.items():
        inputs = [(key, [names[value[0]], value[1]] if isinstance(value, list) else value) for key, value in content["inputs"].items()]
        rng.shuffle(inputs)
        nodes.append((names[name], {"inputs": dict(inputs), "class_type": content["class_type"], "_meta": {"title": str(rng.random())}}))
    rng.shuffle(nodes)
    return dict(nodes), {node_id: name for name, node_id in names.items()}


def check_jobs(worker, count, first_seed):
    """Run *count* jobs and check each; the reports."""
    rng = random.Random(first_seed)
    reports = []
    for number in range(count):
        sent, names = shuffled(workflow("starter-digits.safetensors", first_seed + number), rng)
        report = worker.output(workflow=sent, report=True)["report"]
        assert {names[node_id] for node_id in report["ran"]} == (SEEDED if reports else set(names.values())), report
        reports.append(report)
    assert reports[0]["temperature"] == "cold" and reports[0]["models"]["read_bytes"] > 10_000_000
    assert all(report["temperature"] == "warm" and report["models"]["read_bytes"] == 0 for report in reports[1:])
    assert "cold:" in worker.summaries()[-count] and "warm: 0 bytes of models from disk" in worker.summaries()[-1]
    return reports


def test_twenty_jobs_stay_within_the_workers_time(warm_worker):
    reports = check_jobs(warm_worker, 20, 1000)
    assert statistics.median(report["seconds"]["worker_s"] for report in reports) <= WORKER_MEDIAN_S
    log = warm_worker.log()
    assert "model caching: models stay in up to 1.05 GB of RAM" in log and "node results: cache mode classic" in log


def test_a_model_that_was_evicted_and_comes_back_from_ram_is_warm(warm_worker):
    """Another checkpoint between two jobs: the loader runs again, its models come from RAM."""
    for name in ("starter-digits.safetensors", "starter-outlines.safetensors"):
        warm_worker.output(workflow=workflow(name, 1))
    report = warm_worker.output(workflow=workflow("starter-digits.safetensors", 2), report=True)["report"]
    assert report["temperature"] == "warm" and report["models"]["hits"] >= 3 and report["models"]["saved_s"] > 0
