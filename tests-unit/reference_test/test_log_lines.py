"""docs/reference/log-lines.md has every line that the caches log, at its level, and none besides."""

import pathlib
import re

from log_texts import ROOT, lines

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "reference" / "log-lines.md"
SUMMARY = ("info", "models of prompt …: …")  # put together where receipts are kept

AT_START = ("warning", "With --cache-none results are neither fetched from cache providers nor stored there; leave it out to share them")


def test_the_page_lists_the_lines_of_the_code():
    listed = set()
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| (debug|info|warning|error) \| (`.*?) \|", line)
        if row:
            listed.update((row[1], text) for text in re.findall(r"`([^`]+)`", row[2]))
    assert listed == lines() | {SUMMARY, AT_START}
    assert f'log.{AT_START[0]}("{AT_START[1]}")' in (ROOT / "main.py").read_text(encoding="utf-8")
