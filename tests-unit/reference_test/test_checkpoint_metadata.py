"""docs/reference says which quantised weights are read and refused, and what goes unused."""

import logging
import pathlib
import re

import pytest
import torch

from comfy.families import key_accounts, quantised_marks, quantised_weights
from comfy.families.model_errors import QuantisedModelError
from comfy.families.weight_source import StateDictSource
from comfy.quantisation import formats, kitchen

REFERENCE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "reference"
PAGE = REFERENCE / "checkpoint-metadata.md"
QUANTISED = REFERENCE / "quantised-weights.md"


def rows():
    """(kind, suffixes) of the page's table of refused kinds."""
    table = QUANTISED.read_text(encoding="utf-8").partition("| recognised by |")[2].partition("\n\n")[0]
    return [(row.split("|")[1].strip(), re.findall(r"`([^`]+)`", row.split("|")[2])) for row in table.splitlines()[2:]]


def test_the_table_has_every_refused_kind():
    assert [kind for kind, _ in rows()] == [kind for _, kind in quantised_marks._FOREIGN]


def test_the_page_has_every_format():
    page = QUANTISED.read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in formats.FORMATS) and kitchen.INSTALL in page


@pytest.mark.parametrize("kind, suffix", [(kind, suffix) for kind, suffixes in rows() for suffix in suffixes])
def test_each_suffix_is_refused_as_its_kind(kind, suffix):
    source = StateDictSource({"layer.weight": torch.zeros(2, 2), f"layer{suffix}": torch.zeros(1)}, "odd.safetensors")
    with pytest.raises(QuantisedModelError, match=re.escape(f"odd.safetensors is quantised with {kind}")):
        quantised_weights.plain_weights(source)


def test_the_line_about_unused_tensors_is_as_shown(caplog):
    caplog.set_level(logging.WARNING)
    key_accounts.say_unused("x", "the ControlNet", ["a", "b", "position_ids", "model_ema.c", "logit_scale", "d"], ())
    (shown,) = re.findall(r"^    …: (3 tensors .*)…$", PAGE.read_text(encoding="utf-8"), re.M)
    assert caplog.messages == [f"x: {shown}a, b, d"]
