"""docs/reference/receipts.md has every field, tier and reason of the code, and none besides."""

import dataclasses
import json
import pathlib
import re

from reason_texts import reasons

from comfy.ram_model_cache.receipts import Receipt

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "reference" / "receipts.md"


def first_column(head):
    """What the tables headed *head* list, in code marks."""
    listed, in_table = set(), False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        in_table = line.startswith(f"| {head} |") or in_table and line.startswith("|")
        found = re.match(r"\| `([^`]*)` \|", line)
        if in_table and found:
            listed.add(found[1])
    return listed


def test_every_reason_of_the_code_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    missing = [reason for reason in reasons() if f"`{reason}`" not in text and f"`{reason.rstrip()} …`" not in text]
    assert not missing, f"docs/reference/receipts.md does not explain {missing}"


def test_every_reason_on_the_page_is_in_the_code():
    known = reasons()
    listed = first_column("reason") | first_column("cause")
    assert len(listed) > 20
    unknown = {reason for reason in listed if reason not in known and reason.removesuffix(" …") + " " not in known}
    assert not unknown, f"no code gives the reasons {unknown}"


def test_fields_and_the_example_are_those_of_a_receipt():
    fields = {field.name for field in dataclasses.fields(Receipt)}
    assert first_column("field") == fields
    example = json.loads(re.search(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1])
    assert example and all(set(receipt) == fields for receipt in example)


def test_tiers_are_those_that_receipts_document():
    documented = re.search(r"\*tier\*:(.*?)\*seconds\*", Receipt.__doc__, re.DOTALL)[1]
    assert first_column("tier") == set(re.findall(r"``([^`]+)``", documented))
