"""The official page over two servers in a real browser, and the page of the fleet."""

import json
import pathlib
import random
import sys
import time

import pytest
from live_server import ROOT

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from model_workflows import STARTERS, node, workflow  # noqa: E402
from official_page import Page, running_browser  # noqa: E402


@pytest.fixture(scope="module")
def browser():
    yield from running_browser()


def test_the_official_page_runs_on_the_fleet(browser, gateway):
    page = Page(browser, gateway)
    page.close_templates()
    uploaded = page.tab.evaluate(
        """async bytes => {
            const form = new FormData();
            form.append("image", new File([new Uint8Array(bytes)], "example.png", {type: "image/png"}));
            return (await window.app.api.fetchApi("/upload/image", {method: "POST", body: form})).status;
        }""",
        list((ROOT / "input" / "example.png").read_bytes()),
    )
    assert uploaded == 200
    page.run(json.loads((ROOT / "examples" / "image_scale_invert.json").read_text()))
    page.tab.wait_for_function(
        "() => window.app.graph.nodes.find(node => node.type === 'SaveImage').imgs?.[0]?.naturalWidth === 256", timeout=60_000
    )
    assert page.complaints == []
    page.tab.close()


def test_the_page_gets_progress_previews_and_the_end_of_a_job_on_either_server(browser, gateway):
    page = Page(browser, gateway)
    page.tab.evaluate("""() => { window.seen = {progress: 0, previews: 0, ended: 0, failed: 0};
        window.app.api.addEventListener('progress', () => { window.seen.progress += 1; });
        window.app.api.addEventListener('b_preview_with_metadata', () => { window.seen.previews += 1; });
        window.app.api.addEventListener('execution_success', () => { window.seen.ended += 1; });
        window.app.api.addEventListener('execution_interrupted', () => { window.seen.failed += 1; }); }""")
    client = page.tab.evaluate("() => window.app.api.clientId")
    for count, name in enumerate(STARTERS, 1):
        prompt = workflow(name, random.randrange(2**32))
        (sampler,) = (one for one in prompt.values() if one["class_type"] == "KSampler")
        sampler["inputs"]["steps"] = 10
        assert gateway.post("/api/prompt", {"prompt": prompt, "client_id": client})[0] == 200
        page.tab.wait_for_function("count => window.seen.ended === count", arg=count, timeout=60_000)
    seen = page.tab.evaluate("() => window.seen")
    assert seen["progress"] > 4 and seen["previews"] >= 2
    # Cancelled as the page's button does it.
    sampler["inputs"].update(steps=400, seed=random.randrange(2**32))
    _, answer = gateway.post("/api/prompt", {"prompt": prompt, "client_id": client})
    page.tab.evaluate(
        """async id => { await window.app.api.fetchApi("/jobs/cancel",
            {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({job_ids: [id]})}); }""",
        answer["prompt_id"],
    )
    for _ in range(300):
        job = gateway.get(f"/api/jobs/{answer['prompt_id']}") if answer["prompt_id"] in gateway.get("/history") else {}
        if job.get("status") == "cancelled" or gateway.get("/prompt")["exec_info"]["queue_remaining"] == 0:
            break
        time.sleep(0.1)
    assert gateway.get("/prompt")["exec_info"]["queue_remaining"] == 0
    assert page.complaints == []
    page.tab.close()


def test_the_page_shows_what_is_wrong_with_a_prompt(browser, gateway):
    page = Page(browser, gateway)
    page.tab.evaluate("prompt => window.app.loadApiJson(prompt, 'test')", {"1": node("SaveImage", filename_prefix="x")})
    page.tab.wait_for_function("() => window.app.graph.nodes.length === 1")
    page.tab.evaluate("() => window.app.queuePrompt(0)")
    page.tab.get_by_text("Required input missing").first.wait_for(timeout=30_000)
    assert page.complaints and all("400" in text or "PromptExecutionError" in text for text in page.complaints), page.complaints
    page.tab.close()


def test_the_page_of_the_fleet(browser, gateway):
    name = "<img src=x onerror=window.hurt=true>"
    assert gateway.post("/prompt", {"prompt": {"1": node("EmptyImage"), "2": node("SaveImage", images=["1", 0])}, "client_id": name})[0]
    gateway.run(workflow(STARTERS[0], random.randrange(2**32)), timeout_s=60)
    tab = browser.new_page()
    complaints = []
    tab.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    tab.goto(gateway.url + "/fleet")
    tab.get_by_text("2 of 2 servers ready").wait_for(timeout=20_000)
    assert tab.locator("#servers tbody tr").count() == 2 and tab.locator("#decisions tbody tr").count() >= 1
    assert complaints == [] and tab.evaluate("() => window.hurt") is None
    state = gateway.get("/fleet/state")
    assert [one["state"] for one in state["servers"]] == ["ready", "ready"] and state["decisions"][0]["reason"]
    assert "stats" in gateway.get("/fleet/servers/s2/caches")["models"]
    tab.close()


@pytest.mark.parametrize("path", ["/fleet/..%2Fapp.py", "/fleet/page.html", "/fleet/servers/nobody/caches"])
def test_the_page_of_the_fleet_gives_nothing_else(gateway, path):
    with pytest.raises(OSError):
        gateway.get(path)
