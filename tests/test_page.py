"""The official page in a real browser: it starts without complaint, and a workflow queued in it shows its picture."""

import json
import os
import shutil

import pytest
from live_server import ROOT
from playwright.sync_api import sync_playwright

CHROMIUM = os.environ.get("KEEPWARM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: apt-get install chromium, or name one in KEEPWARM_CHROMIUM")
        pytest.skip("no Chromium on the PATH; install it or name one in KEEPWARM_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


class Page:
    """One tab, with everything in it that the server is to blame for."""

    def __init__(self, browser, server):
        self.tab = browser.new_page(viewport={"width": 1400, "height": 850})
        self.complaints = []
        self.tab.on("response", lambda answer: self.note(answer.url, f"{answer.status} {answer.url}") if answer.status >= 400 else None)
        self.tab.on("console", lambda line: self.note(line.location.get("url", ""), line.text) if line.type == "error" else None)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.server = server
        self.tab.goto(server.url)
        self.tab.wait_for_function("() => window.app && window.app.graph && window.app.extensionManager", timeout=60_000)
        self.tab.wait_for_load_state("networkidle")

    def note(self, url, text):
        if url.startswith(self.server.url) and "api.comfy.org" not in text:
            self.complaints.append(text)

    def close_templates(self):
        """Close the dialog that a new user is greeted with."""
        self.tab.get_by_placeholder("Search ...").first.wait_for(timeout=30_000)
        self.tab.keyboard.press("Escape")
        self.tab.get_by_text("All Templates").wait_for(state="hidden", timeout=10_000)

    def run(self, prompt):
        """Load an API-format workflow, press run, and wait until the server has finished it."""
        self.tab.evaluate("prompt => window.app.loadApiJson(prompt, 'test')", prompt)
        self.tab.wait_for_function("count => window.app.graph.nodes.length === count", arg=len(prompt))
        self.tab.evaluate("() => window.app.queuePrompt(0)")
        self.tab.wait_for_function(
            "() => window.app.graph.nodes.some(node => node.imgs && node.imgs.length && node.imgs[0].naturalWidth)", timeout=60_000
        )


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
