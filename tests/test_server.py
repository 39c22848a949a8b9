"""The real server, from a queued prompt to the saved picture, over HTTP and WebSocket."""

import io
import json

import numpy
import pytest
from live_server import ROOT, Client
from PIL import Image


@pytest.fixture(scope="module", autouse=True)
def picture(server):
    (server.base / "input" / "example.png").write_bytes((ROOT / "input" / "example.png").read_bytes())


def example(**changes):
    prompt = json.loads((ROOT / "examples" / "image_scale_invert.json").read_text())
    for node_id, inputs in changes.items():
        prompt[node_id.removeprefix("n")]["inputs"] |= inputs
    return prompt


def test_the_example_gives_the_inverted_scaled_picture_with_its_workflow(server):
    run = server.run(example(), extra_data={"extra_pnginfo": {"workflow": {"id": "w"}}})
    picture = Image.open(io.BytesIO(run.file_bytes()))
    original = Image.open(ROOT / "input" / "example.png").convert("RGB")
    assert picture.size == (256, 256)
    assert abs(numpy.asarray(picture).mean() - (255 - numpy.asarray(original).mean())) < 3
    assert json.loads(picture.info["prompt"])["2"]["class_type"] == "ImageScale"
    assert json.loads(picture.info["workflow"]) == {"id": "w"}
    assert run.history["status"]["status_str"] == "success"


def test_messages_come_in_the_order_that_clients_rely_on(server):
    run = server.run(example(n2={"width": 100}))
    kinds = [message["type"] for message in run.messages]
    for earlier, later in (("execution_start", "execution_cached"), ("execution_cached", "executing"), ("executed", "execution_success")):
        assert kinds.index(earlier) < kinds.index(later)
    assert kinds[-1] == "executing"
    assert kinds[-2] == "status"
    assert {"2", "3", "4"} <= set(run.executed)
    assert all(data["prompt_id"] == run.prompt_id for data in run.of_type("executing"))


def test_a_second_run_is_answered_from_the_cache_at_once(server):
    server.run(example(n2={"width": 120}))
    run = server.run(example(n2={"width": 120}))
    assert run.executed == []
    assert set(run.of_type("execution_cached")[0]["nodes"]) == {"1", "2", "3", "4"}
    assert run.files


def test_one_changed_input_runs_what_depends_on_it_only(server):
    server.run(example(n2={"width": 130}))
    assert server.run(example(n2={"width": 131})).executed == ["2", "3", "4"]


def test_an_error_names_the_node_and_the_queue_goes_on(server):
    (server.base / "input" / "broken.png").write_bytes(b"this is no picture")
    run = server.run(example(n1={"image": "broken.png"}))
    error = run.of_type("execution_error")[0]
    assert (error["node_id"], error["node_type"]) == ("1", "LoadImage")
    assert run.history["status"]["status_str"] == "error"
    assert server.run(example(n2={"width": 140})).history["status"]["completed"]


def test_each_client_sees_its_own_prompt_only(server):
    first, second = Client(server), Client(server)
    run = first.run(example(n2={"width": 150}))
    second.run(example(n2={"width": 151}))
    assert all(data["prompt_id"] == run.prompt_id for kind in ("executing", "progress_state", "executed") for data in run.of_type(kind))
    first.close()
    second.close()


def test_a_chain_of_ten_thousand_nodes_is_accepted_and_runs(server):
    prompt = {"0": {"class_type": "EmptyImage", "inputs": {"width": 1, "height": 1, "batch_size": 1, "color": 0}}}
    for index in range(1, 10_000):
        prompt[str(index)] = {"class_type": "ImageInvert", "inputs": {"image": [str(index - 1), 0]}}
    prompt["out"] = {"class_type": "PreviewImage", "inputs": {"images": ["9999", 0]}}
    run = server.run(prompt, timeout_s=110)
    assert run.history["status"]["status_str"] == "success"
    assert len(run.executed) == 10_001
    assert server.run(prompt).executed == []


def test_it_starts_without_torch_and_ends_on_request(start_server):
    live = start_server(name="short")
    assert live.get("/features")["supports_preview_metadata"] is True
    assert live.stop() == 0
    assert "Starting server" in live.log()
    assert "Traceback" not in live.log()
    assert not (live.base / "temp").exists()


@pytest.mark.parametrize("flags", [("--cache-classic",), ("--cache-lru", "100"), ("--cache-ram",), ("--cache-none",)], ids=" ".join)
def test_every_cache_mode_gives_the_same_picture(start_server, flags):
    live = start_server(*flags)
    (live.base / "input" / "example.png").write_bytes((ROOT / "input" / "example.png").read_bytes())
    first = live.run(example()).file_bytes()
    again = live.run(example())
    assert again.executed == (["1", "2", "3", "4"] if "--cache-none" in flags else [])
    assert Image.open(io.BytesIO(first)).tobytes() == Image.open(io.BytesIO(again.file_bytes())).tobytes()
