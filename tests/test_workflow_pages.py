"""The conversion of saved workflows against the official page in a real browser."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from live_server import ROOT

sys.path.append(str(ROOT / "benchmarks"))

from page_prompts import chromium, differences, open_page, read_prompt, running_browser  # noqa: E402

SAMPLES = ROOT / "tests-unit" / "app_test" / "workflow_pages" / "samples"
TEMPLATES, URL, ANSWERS = (os.environ.get(f"KEEPWARM_{name}") for name in ("TEMPLATES", "PAGE_URL", "PAGE_ANSWERS"))


def need_chromium():
    if chromium() is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium: apt-get install chromium, or name one in KEEPWARM_CHROMIUM")
        pytest.skip("no Chromium on the PATH; install it or name one in KEEPWARM_CHROMIUM")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_still_makes_of_every_sample_what_is_written_there(start_server):
    need_chromium()
    server = start_server()
    classes = json.loads((SAMPLES / "object_info.json").read_text(encoding="utf-8"))
    changed = {}
    with running_browser() as browser:
        tab = open_page(browser, server.url, classes)
        for path in sorted(SAMPLES.glob("[0-9]*.json")):
            sample = json.loads(path.read_text(encoding="utf-8"))
            output, errors = read_prompt(tab, sample["workflow"])
            found = differences(sample["prompt"], output) if output else ["nothing", *errors]
            if found:
                changed[path.name] = found
    assert not changed, f"the installed page follows other rules: {json.dumps(changed, indent=1)}"


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(
    not (TEMPLATES and URL),
    reason="name the folder of official templates in KEEPWARM_TEMPLATES and, in "
    "KEEPWARM_PAGE_URL, a running plain ComfyUI with the official page, to hold the conversion against it",
)
def test_at_least_99_of_100_official_templates_become_the_pages_prompt(tmp_path):
    need_chromium()
    assert TEMPLATES and URL
    report = tmp_path / "report.json"
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "workflow_pages.py"),
        TEMPLATES,
        "--url",
        URL,
        "--report",
        str(report),
        "--answers",
        ANSWERS or str(tmp_path / "answers"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert pathlib.Path(report).exists(), done.stderr
    told = json.loads(report.read_text(encoding="utf-8"))
    assert told["of"] >= 100 and told["equal"] >= 0.99 * told["of"], json.dumps(told["differ"], indent=1)
