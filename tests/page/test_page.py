"""The official page in a real browser: it starts without complaint, and a workflow queued in it shows its picture."""

import json
import os

import pytest
from live_server import ROOT
from official_page import Page, running_browser


@pytest.fixture(scope="module")
def browser():
    yield from running_browser()


def test_the_page_starts_and_shows_the_picture_of_a_queued_workflow(browser, start_server, tmp_path):
    server = start_server()
    (server.base / "input" / "example.png").write_bytes((ROOT / "input" / "example.png").read_bytes())
    page = Page(browser, server)
    assert page.tab.evaluate("() => Object.keys(window.LiteGraph.registered_node_types).includes('ImageInvert')")
    page.close_templates()
    page.run(json.loads((ROOT / "examples" / "image_scale_invert.json").read_text()))
    page.tab.wait_for_function(
        "() => window.app.graph.nodes.find(node => node.type === 'SaveImage').imgs?.[0]?.naturalWidth === 256", timeout=60_000
    )
    page.tab.screenshot(path=os.environ.get("KEEPWARM_SCREENSHOT", str(tmp_path / "page.png")))
    assert page.complaints == []
    assert len(server.get("/history")) == 1


def test_progress_of_every_node_of_a_wide_graph_reaches_the_page(browser, start_server):
    server = start_server()
    prompt = {"src": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}}
    for index in range(200):
        scaled = {"image": ["src", 0], "upscale_method": "area", "width": index + 1, "height": 8, "crop": "disabled"}
        prompt[f"n{index}"] = {"class_type": "ImageScale", "inputs": scaled}
        prompt[f"p{index}"] = {"class_type": "PreviewImage", "inputs": {"images": [f"n{index}", 0]}}
    page = Page(browser, server)
    page.tab.evaluate("""() => { window.seen = new Set();
        window.app.api.addEventListener('executing', event => { if (event.detail) window.seen.add(String(event.detail)); });
        window.app.api.addEventListener('execution_success', () => { window.ended = true; }); }""")
    client = page.tab.evaluate("() => window.app.api.clientId")
    status, answer = server.post("/prompt", {"prompt": prompt, "client_id": client})
    assert status == 200, answer
    page.tab.wait_for_function("() => window.ended", timeout=60_000)
    assert len(page.tab.evaluate("() => [...window.seen]")) == len(prompt)
    assert page.complaints == []


def test_a_new_user_opens_the_starter_template_and_sees_its_digits(browser, start_server, tmp_path):
    server = start_server()
    checkpoints = server.base / "models" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "starter-digits.safetensors").symlink_to(ROOT / "models" / "checkpoints" / "starter-digits.safetensors")
    page = Page(browser, server)
    page.tab.get_by_text("Draw handwritten digits").first.click()
    page.tab.wait_for_function("() => window.app.graph.nodes.some(node => node.type === 'KSampler')", timeout=30_000)
    page.tab.evaluate("() => window.app.queuePrompt(0)")
    page.tab.wait_for_function(
        "() => window.app.graph.nodes.find(node => node.type === 'SaveImage').imgs?.[0]?.naturalWidth", timeout=110_000
    )
    page.tab.screenshot(path=os.environ.get("KEEPWARM_SCREENSHOT_STARTER", str(tmp_path / "starter.png")))
    assert page.complaints == []
