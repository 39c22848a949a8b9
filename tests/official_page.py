"""The official page in a real browser."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = os.environ.get("KEEPWARM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def running_browser() -> Iterator[Any]:
    """A headless Chromium, for a fixture; skips without one, and fails in CI."""
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
