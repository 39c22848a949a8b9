"""The worker before an unpatched ComfyUI: given a checkout of it, twenty jobs and the rows of the contract.

    KEEPWARM_UPSTREAM_CHECKOUT=…/ComfyUI KEEPWARM_UPSTREAM_PYTHON=…/bin/python pytest tests/serverless/test_worker_on_upstream.py

Nothing in the checkout is changed. The starter checkpoints are a family of our own, which ComfyUI does not know, so the jobs load no model,
unless KEEPWARM_UPSTREAM_CHECKPOINT names the file of one that it does.
"""

import os
import pathlib
import random
import statistics

import pytest
import test_worker_contract as contract
from live_server import LiveServer
from model_workflows import checkpoints, node, with_starters, workflow
from test_worker_warm import SEEDED, WORKER_MEDIAN_S, shuffled
from worker_process import WorkerProcess

CHECKOUT = os.environ.get("KEEPWARM_UPSTREAM_CHECKOUT")
PYTHON = os.environ.get("KEEPWARM_UPSTREAM_PYTHON")
CHECKPOINT = os.environ.get("KEEPWARM_UPSTREAM_CHECKPOINT")

pytestmark = [
    pytest.mark.skipif(not (CHECKOUT and PYTHON), reason="KEEPWARM_UPSTREAM_CHECKOUT and KEEPWARM_UPSTREAM_PYTHON name no ComfyUI to test"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """A worker for a ComfyUI that has the starter checkpoints."""
    pytest.importorskip("runpod", reason="the worker's tests run through RunPod's SDK: pip install -r requirements-runpod.txt")
    folder = tmp_path_factory.mktemp("upstream")
    server = with_starters(LiveServer(folder / "server", root=pathlib.Path(CHECKOUT), python=PYTHON, start_timeout_s=380))
    if CHECKPOINT:
        (checkpoints(server) / "given.safetensors").symlink_to(CHECKPOINT)
    process = WorkerProcess(folder, f"127.0.0.1:{server.port}")
    yield process
    process.stop()
    server.stop()


def job(seed):
    """A workflow with a part that depends on *seed*, and the names of that part's nodes."""
    if CHECKPOINT:
        return workflow("given.safetensors", seed), SEEDED
    plain = {
        "still": node("EmptyImage", width=64, height=48, batch_size=1, color=255),
        "turned": node("ImageInvert", image=["still", 0]),
        "drawn": node("EmptyImage", width=64, height=48, batch_size=1, color=seed),
        "mixed": node("ImageBlend", image1=["turned", 0], image2=["drawn", 0], blend_factor=0.5, blend_mode="normal"),
        "save": node("SaveImage", images=["mixed", 0], filename_prefix="mixed"),
    }
    return plain, {"drawn", "mixed", "save"}


def test_twenty_jobs_run_only_what_depends_on_the_seed(worker):
    """ComfyUI says nothing of where models came from, so the summary says that it is not known."""
    rng, reports = random.Random(3), []
    for number in range(20):
        plain, seeded = job(5000 + number)
        sent, names = shuffled(plain, rng)
        output = worker.output(workflow=sent, report=True)
        assert len(output["images"]) == 1
        report = output["report"]
        assert {names[node_id] for node_id in report["ran"]} == (seeded if reports else set(names.values())), report
        assert report["temperature"] == "unknown", report
        reports.append(report)
    assert statistics.median(report["seconds"]["worker_s"] for report in reports) <= WORKER_MEDIAN_S
    assert "unknown:" in worker.summaries()[-1] and "models unknown (the server has no receipts)" in worker.summaries()[-1]


ROWS = [
    contract.test_a_workflow_gives_its_pictures_without_their_folder,
    contract.test_the_input_files_of_a_workflow,
    contract.test_an_input_file_of_the_same_name_replaces_the_earlier_one,
    contract.test_keys_that_are_not_known_are_ignored,
    contract.test_run_answers_at_once_and_status_gives_the_pictures,
    contract.test_several_pictures_keep_their_order,
    contract.test_previews_alone_are_a_success_without_pictures,
    contract.test_what_was_made_before_a_node_failed_is_handed_over,
    contract.test_the_pages_format_is_recognised,
    contract.test_a_file_that_is_not_base64_is_refused,
    contract.test_an_empty_workflow_is_refused,
    contract.test_an_unknown_node_class_is_refused,
    contract.test_a_value_that_is_not_in_the_list_and_the_checkpoints_there_are,
    contract.test_every_node_that_is_wrong_is_named,
    contract.test_a_node_that_fails_is_named_with_its_message,
    contract.test_a_job_that_takes_too_long,
    contract.test_the_result_is_json,
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__.removeprefix("test_"))
def test_a_row_of_the_contract(worker, row):
    row(worker)
