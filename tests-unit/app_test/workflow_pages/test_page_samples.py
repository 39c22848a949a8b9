"""Every sample becomes the prompt that the official page made of it: one sample for each rule of the page."""

import copy
import json
from datetime import datetime

import pytest
from page_samples import SAMPLES

from app.workflow_pages.conversion import page_to_prompt

FILES = sorted(SAMPLES.glob("[0-9]*.json"))


def comparable(prompt):
    """*prompt* without titles; of classes that the page does not know it has neither the class nor the values' names."""
    return {
        node_id: (
            node.get("class_type", "Unheard"),
            json.dumps({name: value for name, value in node["inputs"].items() if not name.startswith("UNKNOWN")}, sort_keys=True),
        )
        for node_id, node in prompt.items()
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_prompt_equals_the_samples(path, classes):
    sample = json.loads(path.read_text(encoding="utf-8"))
    before = copy.deepcopy(sample["workflow"])
    ours = page_to_prompt(sample["workflow"], classes.get, choose=lambda options: options[0], now=lambda: datetime(2026, 1, 2, 3, 4, 5))
    assert comparable(ours) == comparable(sample["prompt"]), sample["rule"]
    assert sample["workflow"] == before, "the document was changed"


def test_the_samples_are_many_and_each_has_its_prompt():
    assert len(FILES) >= 50
    assert all(json.loads(path.read_text(encoding="utf-8"))["prompt"] for path in FILES)
