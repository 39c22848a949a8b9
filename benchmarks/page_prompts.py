"""What the official page makes of saved workflows: loaded into a real browser, read back with ``app.graphToPrompt``."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
FIXED_TIME = datetime(2026, 1, 2, 3, 4, 5)
"""What ``%date:…%`` means while a prompt is read; every random choice is the first."""

READ_PROMPT = """async ([workflow, time]) => {
    const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)));
    const errors = [];
    try { await window.app.loadGraphData(workflow); } catch (error) { errors.push(`load: ${error}`); }
    for (let count = 0; count < 4; count++) await frame();
    const [random, Clock] = [Math.random, window.Date];
    Math.random = () => 0;
    window.Date = class extends Clock { constructor(...given) { super(...(given.length ? given : time)); } };
    let output = null;
    try { output = (await window.app.graphToPrompt()).output; }
    catch (error) { errors.push(`prompt: ${error}`); }
    finally { Math.random = random; window.Date = Clock; }
    return [JSON.stringify(output), errors];
}"""


def chromium() -> str | None:
    """The browser to use, or None."""
    return os.environ.get("KEEPWARM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """A headless Chromium; ends with the context."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), headless=True, args=FLAGS)
        yield browser
        browser.close()


def open_page(browser: Browser, url: str, object_info: dict[str, Any] | None = None) -> Page:
    """The page of the server at *url*; with *object_info* it sees those node classes instead of the server's."""
    tab = browser.new_page(viewport={"width": 1400, "height": 850})
    if object_info is not None:
        tab.route("**/object_info", lambda route: route.fulfill(json=object_info))
    tab.goto(url)
    tab.wait_for_function("() => window.app && window.app.graph && window.app.extensionManager", timeout=90_000)
    tab.wait_for_load_state("networkidle")
    return tab


def read_prompt(tab: Page, workflow: Any) -> tuple[dict[str, Any] | None, list[str]]:
    """What the page would send for *workflow*, and what it complained about."""
    time = [FIXED_TIME.year, FIXED_TIME.month - 1, FIXED_TIME.day, FIXED_TIME.hour, FIXED_TIME.minute, FIXED_TIME.second]
    output, errors = tab.evaluate(READ_PROMPT, [workflow, time])
    return json.loads(output) if output else None, errors


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Every node, class, value and link in which two prompts differ; titles do not count.

    For a class that the page does not know it sends no ``class_type`` and values under made-up names (UNKNOWN…): only links are
    compared there.
    """
    found = [f"{node_id}: only the page has it" for node_id in theirs.keys() - ours.keys()]
    found += [f"{node_id}: the page does not have it" for node_id in ours.keys() - theirs.keys()]
    for node_id in sorted(theirs.keys() & ours.keys()):
        page, own = theirs[node_id], ours[node_id]
        values = {name: value for name, value in page["inputs"].items() if "class_type" in page or not name.startswith("UNKNOWN")}
        kind = page.get("class_type")
        made_values = own["inputs"] if kind else {name: one for name, one in own["inputs"].items() if not name.startswith("UNKNOWN")}
        if kind not in (None, own.get("class_type")):
            found.append(f"{node_id}: {kind}, here {own.get('class_type')}")
        for name in sorted(values.keys() | made_values.keys()):
            told, made = (json.dumps(side.get(name, "nothing"), sort_keys=True) for side in (values, made_values))
            if told != made:
                found.append(f"{node_id} {kind}.{name}: page {told[:80]}, here {made[:80]}")
    return found


def saved_workflows(folder: pathlib.Path) -> dict[str, Any]:
    """Every saved workflow of *folder* by its file's name."""
    documents = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
    return {name: one for name, one in documents.items() if isinstance(one, dict) and isinstance(one.get("nodes"), list)}
