"""Requests, results and errors that clients of worker-comfyui know, through RunPod's local server and a real server of ours."""

import base64
import io
import json
import random
import re
import urllib.request

import pytest
from live_server import free_port
from model_workflows import node, workflow
from PIL import Image


def png(color=(10, 20, 30)):
    stream = io.BytesIO()
    Image.new("RGB", (16, 12), color).save(stream, "PNG")
    return stream.getvalue()


def encoded(data):
    return base64.b64encode(data).decode()


def pixels(entry):
    with Image.open(io.BytesIO(base64.b64decode(entry["data"], validate=True))) as image:
        return image.size, image.convert("RGB").getpixel((0, 0))


def drawing(color=255, **more):
    """A picture without a model."""
    return {
        "7": node("EmptyImage", width=16, height=12, batch_size=1, color=color),
        "8": node("SaveImage", images=["7", 0], filename_prefix="drawn/picture"),
        **more,
    }


def inverted(name="in.png"):
    return {
        "1": node("LoadImage", image=name),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("SaveImage", images=["2", 0], filename_prefix="inverted"),
    }


# Requests


def test_a_workflow_gives_its_pictures_without_their_folder(worker):
    output = worker.output(workflow=drawing())
    (image,) = output["images"]
    assert list(output) == ["images"] and set(image) == {"filename", "type", "data"} and image["type"] == "base64"
    assert re.fullmatch(r"picture_\d{5}_\.png", image["filename"]) and pixels(image) == ((16, 12), (0, 0, 255))


def test_the_input_files_of_a_workflow(worker):
    for text in (encoded(png()), "data:image/png;base64," + encoded(png())):
        output = worker.output(workflow=inverted(), images=[{"name": "in.png", "image": text, "anything": 1}])
        assert pixels(output["images"][0]) == ((16, 12), (245, 235, 225))


def test_an_input_file_of_the_same_name_replaces_the_earlier_one(worker):
    for color in ((1, 2, 3), (100, 100, 100)):
        output = worker.output(workflow=inverted("same.png"), images=[{"name": "same.png", "image": encoded(png(color))}])
        assert pixels(output["images"][0])[1] == tuple(255 - value for value in color)


def test_keys_that_are_not_known_are_ignored(worker):
    assert worker.output(workflow=drawing(5), webhook="x", anything={"a": 1}, comfy_org_api_key="k")["images"]


@pytest.mark.parametrize("body", [{}, {"input": None}, {"input": "text"}])
def test_the_local_server_refuses_malformed_input_before_the_worker_sees_it(worker, body):
    assert worker.post("/runsync", body)[0] == 422


def test_run_answers_at_once_and_status_gives_the_pictures(worker):
    _, taken = worker.post("/run", {"input": {"workflow": drawing(6)}})
    assert taken["status"] == "IN_PROGRESS"
    _, told = worker.post(f"/status/{taken['id']}", {})
    assert told["status"] == "COMPLETED" and told["output"]["images"]


# Results


def test_several_pictures_keep_their_order(worker):
    many = drawing(
        **{
            "5": node("EmptyImage", width=8, height=8, batch_size=3, color=0),
            "6": node("SaveImage", images=["5", 0], filename_prefix="many"),
        }
    )
    images = worker.output(workflow=many)["images"]
    names = [image["filename"] for image in images if image["filename"].startswith("many")]
    assert len(images) == 4 and len(names) == 3 and names == sorted(names)


def test_previews_alone_are_a_success_without_pictures(worker):
    preview = {"1": node("EmptyImage", width=8, height=8, batch_size=1, color=0), "2": node("PreviewImage", images=["1", 0])}
    assert worker.output(workflow=preview) == {"status": "success_no_images", "images": []}


def test_what_was_made_before_a_node_failed_is_handed_over(worker):
    output = worker.output(
        workflow=drawing(
            random.randrange(2**24),
            **{
                "20": node("ImageInvert", image=["7", 0]),
                "21": node("ImageInvert", image=["20", 0]),
                "22": node("SaveImage", images=["21", 0], filename_prefix="../../outside"),
            },
        )
    )
    assert len(output["images"]) == 1 and "Node Type: SaveImage, Node ID: 22, Message:" in output["errors"][0]


# Errors


@pytest.mark.parametrize(
    "job_input, message",
    [
        ({"images": []}, "Missing 'workflow' parameter"),
        ({"workflow": {}, "images": "x"}, "'images' must be a list of objects with 'name' and 'image' keys"),
        ({"workflow": {}, "images": [{"name": "x"}]}, "'images' must be a list of objects with 'name' and 'image' keys"),
    ],
)
def test_invalid_inputs_are_refused_with_the_workers_messages(worker, job_input, message):
    assert worker.error(**job_input) == message


def test_the_pages_format_is_recognised(worker):
    assert "Export (API)" in worker.error(workflow={"nodes": [{"id": 1, "type": "A"}], "links": []})


def test_a_file_that_is_not_base64_is_refused(worker):
    assert worker.error(workflow=inverted(), images=[{"name": "x.png", "image": "A"}]).startswith(
        "Failed to upload one or more input images:\n• Error decoding base64 for x.png"
    )


def test_a_file_that_the_server_refuses_fails_the_job(worker):
    assert worker.error(workflow=inverted(), images=[{"name": "..", "image": encoded(png())}]).startswith(
        "Failed to upload one or more input images:\n• Error uploading ..: "
    )


def test_an_empty_workflow_is_refused(worker):
    assert worker.error(workflow={})


def test_an_unknown_node_class_is_refused(worker):
    error = worker.error(workflow={"first": node("NobodyHasThis"), "9": node("SaveImage", images=["first", 0])})
    assert "NobodyHasThis" in error and "#first" in error


def test_a_value_that_is_not_in_the_list_and_the_checkpoints_there_are(worker):
    error = worker.error(workflow=workflow("missing.safetensors", 1))
    assert error.startswith("Workflow validation failed:\n• Node model (errors, CheckpointLoaderSimple): Value not in list: ckpt_name: ")
    assert error.endswith("\n\nAvailable checkpoint models: starter-digits.safetensors, starter-outlines.safetensors")


def test_every_node_that_is_wrong_is_named(worker):
    wrong = {"a": node("EmptyImage", width="wide", height=8, batch_size=1, color=0), "b": node("SaveImage", images=["a", 0])}
    error = worker.error(workflow=wrong)
    assert "• Node a (errors, EmptyImage): " in error and "• Node b (errors, SaveImage): " in error and "filename_prefix" in error


def test_a_node_that_fails_is_named_with_its_message(worker):
    error = worker.error(workflow=inverted("broken.png"), images=[{"name": "broken.png", "image": encoded(b"no picture")}])
    assert re.match(r"Job processing failed:\n• Workflow execution error: Node Type: LoadImage, Node ID: 1, Message: \S", error)


def test_an_unreachable_server_fails_the_job(start_worker):
    port = free_port()
    alone = start_worker(f"127.0.0.1:{port}", {"COMFY_API_AVAILABLE_MAX_RETRIES": "2", "COMFY_API_AVAILABLE_INTERVAL_MS": "10"})
    assert alone.error(workflow=drawing()) == f"ComfyUI server (127.0.0.1:{port}) not reachable after multiple retries."
    assert "not reachable" in alone.log()


def test_a_job_that_takes_too_long(worker):
    slow = drawing(9, **{"1": node("EmptyImage", width=8, height=8, batch_size=1, color=1)})
    error = worker.error(workflow={**slow, **workflow("starter-digits.safetensors", 3)}, timeout_s=0.01)
    assert "timed out after 0.01 s" in error and "was stopped" in error


# Settings


@pytest.mark.slow
def test_refresh_is_taken_out_of_the_result_by_the_sdk(model_server, start_worker):
    refreshing = start_worker(f"127.0.0.1:{model_server.port}", {"REFRESH_WORKER": "true", "RUNPOD_DEBUG_LEVEL": "DEBUG"})
    assert list(refreshing.output(workflow=drawing(11))) == ["images"]
    assert "'stopPod': True" in refreshing.log()


def test_a_bucket_without_keys_stops_the_start_and_says_why(model_server, start_worker):
    with pytest.raises(RuntimeError, match="BUCKET_ACCESS_KEY_ID"):
        start_worker(f"127.0.0.1:{model_server.port}", {"BUCKET_ENDPOINT_URL": "https://e"})


def test_results_go_to_a_bucket_and_links_to_them_come_back(model_server, start_worker, s3):
    worker = start_worker(
        f"127.0.0.1:{model_server.port}",
        {
            "BUCKET_ENDPOINT_URL": s3,
            "BUCKET_ACCESS_KEY_ID": "test",
            "BUCKET_SECRET_ACCESS_KEY": "test",
            "BUCKET_NAME": "results",
            "BUCKET_PREFIX": "made",
        },
    )
    (image,) = worker.output(workflow=drawing(12))["images"]
    assert image["type"] == "s3_url" and "/results/made/test-" in image["data"] and image["filename"] in image["data"]
    assert "X-Amz-Expires=604800" in image["data"] and "X-Amz-Signature=" in image["data"]
    with urllib.request.urlopen(image["data"], timeout=20) as answer:
        assert answer.headers["Content-Type"] == "image/png" and Image.open(io.BytesIO(answer.read())).size == (16, 12)


@pytest.mark.slow
def test_a_missing_bucket_is_reported_for_each_file(model_server, start_worker, s3):
    worker = start_worker(
        f"127.0.0.1:{model_server.port}", {"BUCKET_ENDPOINT_URL": s3, "BUCKET_ACCESS_KEY_ID": "test", "BUCKET_SECRET_ACCESS_KEY": "test"}
    )
    error = worker.error(workflow=drawing(13))
    assert re.match(r"Job processing failed:\n• Error uploading picture_\d+_\.png to S3: ", error)


def test_the_summary_line(worker):
    worker.output(workflow=drawing(14))
    expected = r"job test-\S+: done, (warm|unknown): .*; 2 of 2 nodes not cached; \d+\.\d{3} s \(prepare .*; worker \d.*\); prompt \S+"
    assert re.fullmatch(expected, worker.summaries()[-1])


def test_the_result_is_json(worker):
    assert json.loads(json.dumps(worker.output(workflow=drawing(15))))
