"""The panel in the official page, in a real browser: what it shows follows what the server does, and its buttons work."""

import os
import re
import time

import pytest
from live_server import ROOT, LiveServer
from model_workflows import STARTERS, run, with_starters, workflow
from official_page import Page, running_browser

pytestmark = pytest.mark.timeout(300)  # server and browser start within the first test

MANY = 1000
EVIL = "<img src=x onerror=alert(1)>.safetensors"


class Panel:
    """The tab, open beside the graph."""

    def __init__(self, page):
        self.page, self.tab, self.server = page, page.tab, page.server
        page.close_templates()
        # Whatever the server sends is counted before anything else sees it.
        self.tab.evaluate("""() => { window.told = [];
            window.app.api.socket.addEventListener('message', event => {
                if (typeof event.data === 'string' && event.data.includes('keepwarm.models')) window.told.push(event.data.length); }); }""")

    def open(self):
        if not self.tab.get_by_role("listbox", name="Models").count():
            self.tab.get_by_role("button", name="Keepwarm").first.click()
        self.tab.get_by_role("listbox", name="Models").wait_for(timeout=20_000)

    def begin(self):
        """Open, with no model in memory and nothing searched for."""
        self.open()
        self.tab.get_by_label("Search models").fill("")
        self.server.post("/free", {"unload_models": True, "free_memory": True})
        self.until(lambda rows: all(said.startswith("Disk") for said in rows.values()) and rows)

    def shut(self):
        with self.tab.expect_response("**/keepwarm/watch"):
            self.tab.get_by_role("button", name="Keepwarm").first.click()
        self.tab.get_by_role("listbox", name="Models").wait_for(state="detached", timeout=20_000)

    def rows(self):
        """{(name, kind): what the row says} of the rows in sight."""
        texts = self.tab.evaluate("() => [...document.querySelectorAll('.kw-row')].map(row => row.parts.map(part => part.textContent))")
        return {(name, more.split(" · ")[0]): f"{tier} · {more}" for name, tier, more in texts}

    def until(self, condition, timeout_s=20):
        """Wait until *condition* of the rows holds."""
        end_s = time.monotonic() + timeout_s
        while not condition(self.rows()):
            assert time.monotonic() < end_s, self.rows()
            self.tab.wait_for_timeout(50)

    def until_used(self, tier, condition, timeout_s=20):
        """Wait until *condition* of what :meth:`used` gives holds."""
        end_s = time.monotonic() + timeout_s
        while not condition(*self.used(tier)):
            assert time.monotonic() < end_s, self.used(tier)
            self.tab.wait_for_timeout(50)

    def until_caught_up(self):
        """Wait until the bars say what the server says, now that no prompt runs: what is told while one runs is soon out of date."""
        for tier in ("vram", "ram"):
            used_bytes = self.server.get("/keepwarm/models")["bars"][tier]["used_bytes"]
            self.until_used(tier, lambda used, _, expected=used_bytes: used == expected)

    def used(self, tier):
        """Bytes that the bar of *tier* says are used, and the shares of its width that its pieces take."""
        bar = self.tab.locator(f".kw-bar[data-tier={tier}]")
        widths = bar.locator(".kw-piece").evaluate_all("pieces => pieces.map(piece => parseFloat(piece.style.width))")
        return int(bar.get_attribute("data-used")), widths

    def choose(self, name, kind):
        self.tab.locator(".kw-row", has_text=name).filter(has_text=f"{kind} ·").first.click()

    def press(self, button):
        self.tab.get_by_role("button", name=button, exact=True).click()

    def told(self):
        """The sizes of the messages that told of changes."""
        return self.tab.evaluate("() => window.told")

    def until_said(self, text):
        self.tab.locator(".kw-said", has_text=text).wait_for()

    def screenshot(self, name, tmp_path):
        folder = os.environ.get("KEEPWARM_SCREENSHOTS")
        self.tab.screenshot(path=f"{folder or tmp_path}/{name}.png")


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """The panel of a server with two checkpoints, a simulated accelerator that has room for one, and a thousand files more."""
    base = tmp_path_factory.mktemp("panel") / "server"
    (base / "custom_nodes").mkdir(parents=True)
    (base / "custom_nodes" / "keepwarm").symlink_to(ROOT / "custom_nodes" / "keepwarm")
    loras = base / "models" / "loras"
    loras.mkdir(parents=True)
    for index in range(MANY):
        with (loras / f"style-{index:04}.safetensors").open("wb") as file:
            file.truncate(1000 * (index + 1))
    (loras / EVIL).write_bytes(b"1")
    shared = f"file://{base}/shared?max_gb=0.001"
    server = with_starters(LiveServer(base, "--ram-model-cache-mb", "60", "--simulated-vram-mb", "30", "--cache-provider", shared))
    pages = running_browser()
    yield Panel(Page(next(pages), server))
    next(pages, None)
    server.stop()


def test_the_panel_follows_two_models_and_holds_moves_and_drops_them(panel, tmp_path):
    server, page = panel.server, panel.page
    page.tab.evaluate("prompt => window.app.loadApiJson(prompt, 'test')", workflow(STARTERS[0], 1))
    page.tab.wait_for_function("() => window.app.graph.nodes.length === 7")
    panel.begin()
    page.tab.wait_for_function("() => window.app.graph.nodes.some(node => node.badges.some(make => make().text === 'disk'))")
    panel.until(lambda rows: {name for name, _ in rows} >= set(STARTERS))
    panel.until_used("ram", lambda used, widths: (used, widths) == (0, []))
    panel.until_used("store", lambda used, widths: (used, widths) == (0, []))

    run(server, STARTERS[0], 1)
    panel.until(lambda rows: rows.get((STARTERS[0], "model"), "").startswith("VRAM"))
    panel.until_caught_up()
    used, widths = panel.used("vram")
    assert 20e6 < used < 30e6 and sum(widths) == pytest.approx(100 * used / 31457280, abs=0.5) and len(widths) == 3
    page.tab.get_by_text("first use").first.wait_for()
    cap_bytes = int(0.001 * 2**30)
    panel.until_used("store", lambda used, widths: used > 10_000 and widths == [pytest.approx(100 * used / cap_bytes, abs=0.5)])
    page.tab.wait_for_function("() => window.app.graph.nodes.some(node => node.badges.some(make => make().text === 'VRAM'))")

    run(server, STARTERS[1], 2)
    panel.until(lambda rows: rows.get((STARTERS[0], "clip"), "").startswith("RAM"))  # the smallest that makes room
    panel.until(lambda rows: rows.get((STARTERS[1], "model"), "").startswith("VRAM"))
    panel.until_caught_up()
    assert panel.used("ram")[0] > 40e6

    panel.choose(STARTERS[0], "model")
    panel.press("Hold")
    panel.until(lambda rows: "held" in rows[(STARTERS[0], "model")])
    panel.until_said("the last to go")
    page.tab.locator(".kw-piece.kw-held").first.wait_for()
    page.tab.wait_for_function("() => window.app.graph.nodes.some(node => node.badges.some(make => make().text.endsWith('· held')))")
    panel.screenshot("panel-dark", tmp_path)
    panel.press("Let go")
    panel.until(lambda rows: "held" not in rows[(STARTERS[0], "model")])
    panel.press("Drop")
    panel.until(lambda rows: (STARTERS[0], "model") not in rows)

    panel.choose(STARTERS[1], "model")
    before, _ = panel.used("vram")
    panel.press("Move to RAM")
    panel.until(lambda rows: rows[(STARTERS[1], "model")].startswith("RAM"))
    panel.until_used("vram", lambda used, _: used < before - 10e6)
    panel.press("Move all to RAM")
    page.tab.wait_for_function("() => document.querySelector('.kw-bar[data-tier=vram]').dataset.used === '0'")

    run(server, STARTERS[0], 3)
    page.tab.get_by_text(re.compile("from RAM, .* saved")).first.wait_for()
    page.tab.get_by_text(re.compile(r"evicted \(asked for in the panel\)")).wait_for()
    prompts = len(server.get("/history"))
    page.tab.wait_for_function("count => document.querySelectorAll('.kw-chart rect').length === count", arg=4 * prompts)
    saved, results = page.tab.locator(".kw-chart svg").all()
    assert "reading saved" in saved.get_attribute("aria-label") and saved.locator("polyline").count() == 1
    assert f"of {7 * prompts} node results of the last {prompts} prompts" in results.get_attribute("aria-label")
    page.tab.get_by_text(f"file://{server.base}/shared").first.locator("..").filter(has_text="working").wait_for()
    page.tab.evaluate("() => window.app.ui.settings.setSettingValueAsync('Comfy.ColorPalette', 'light')")
    page.tab.wait_for_timeout(300)
    panel.screenshot("panel-light", tmp_path)
    page.tab.evaluate("() => document.querySelector('.kw-chart').scrollIntoView()")
    panel.screenshot("panel-light-below", tmp_path)
    page.tab.evaluate("() => window.app.ui.settings.setSettingValueAsync('Comfy.ColorPalette', 'dark')")
    assert page.complaints == []


def test_a_file_is_preloaded_and_changes_are_small_messages_that_end_with_the_tab(panel):
    server, tab = panel.server, panel.tab
    panel.begin()
    panel.choose(STARTERS[0], "checkpoints")
    told = panel.told()
    panel.press("Preload")
    panel.until(lambda rows: "held" in rows.get((STARTERS[0], "model"), ""))
    tab.get_by_text("Preloaded in").wait_for()
    assert {receipt["tier"] for receipt in run(server, STARTERS[0], 11)[1]} == {"ram"}
    panel.until(lambda rows: rows.get((STARTERS[0], "model"), "").startswith("VRAM"))
    sizes = panel.told()[len(told) :]
    assert 1 <= len(sizes) <= 30 and max(sizes) < 8000, sizes
    panel.shut()
    told = panel.told()
    run(server, STARTERS[1], 12)
    tab.wait_for_timeout(1200)
    assert panel.told() == told
    panel.open()
    panel.until(lambda rows: (STARTERS[1], "model") in rows)
    assert panel.page.complaints == []


def test_a_thousand_models_scroll_smoothly_and_are_reached_by_keyboard(panel, tmp_path):
    tab = panel.tab
    panel.begin()
    tab.get_by_text(f"{MANY + 3} models").wait_for(timeout=30_000)
    assert tab.locator(".kw-row").count() < 30
    # Each step waits for two frames, 33 ms where nothing holds them up.
    median_ms = tab.evaluate("""async () => {
        const list = document.querySelector('.kw-list'), spent = [];
        const frame = () => new Promise(requestAnimationFrame);
        for (let top = 0; top < list.scrollHeight; top += 400) {
            list.scrollTop = top;
            await frame();
            const begun = performance.now();
            list.dispatchEvent(new Event('scroll'));
            await frame();
            await frame();
            const box = list.getBoundingClientRect();
            const rows = [...list.querySelectorAll('.kw-row')].map(row => row.getBoundingClientRect());
            const first = Math.min(...rows.map(row => row.top)), last = Math.max(...rows.map(row => row.bottom));
            if (first > box.top + 2 || last < box.bottom - 2) throw new Error(`nothing drawn at ${top}`);
            spent.push(performance.now() - begun);
        }
        spent.sort((a, b) => a - b);
        return spent[Math.floor(spent.length / 2)];
    }""")
    assert median_ms < 100, f"half the steps take over {median_ms} ms"
    assert tab.locator(".kw-row").count() < 30
    tab.get_by_role("listbox").focus()
    tab.keyboard.press("Home")
    tab.keyboard.press("End")
    last = tab.locator(".kw-row[aria-selected=true]")
    assert last.get_attribute("aria-posinset") == last.get_attribute("aria-setsize") == str(MANY + 3)
    assert tab.get_by_role("listbox").get_attribute("aria-activedescendant") == last.get_attribute("id")
    tab.keyboard.press("PageUp")
    tab.keyboard.press("ArrowUp")
    tab.get_by_label("Search models").fill("0777")
    tab.get_by_text("1 model", exact=True).wait_for()
    tab.get_by_label("Search models").fill("onerror")
    tab.get_by_text(EVIL).first.wait_for()
    assert tab.locator(".kw-panel img").count() == 0
    tab.get_by_label("Search models").fill("starter-digits")
    tab.get_by_role("listbox").focus()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    assert tab.evaluate("() => document.activeElement.dataset.action") == "preload"
    tab.keyboard.press("Escape")
    assert tab.evaluate("() => document.activeElement.getAttribute('role')") == "listbox"
    tab.get_by_label("Search models").fill("")
    panel.screenshot("panel-1000", tmp_path)
    assert panel.page.complaints == []
