"""docs/reference/log-lines.md has every line that the caches log, at its level, and none besides."""

import pathlib
import re

from log_texts import lines

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "reference" / "log-lines.md"
SUMMARY = ("info", "models of prompt …: …")  # put together where receipts are kept


def test_the_page_lists_the_lines_of_the_code():
    listed = set()
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| (debug|info|warning|error) \| (`.*?) \|", line)
        if row:
            listed.update((row[1], text) for text in re.findall(r"`([^`]+)`", row[2]))
    assert listed == lines() | {SUMMARY}
