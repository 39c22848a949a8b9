"""Which declared types fit one another."""

import pytest

from comfy_execution.validation import validate_node_input


class Anything(str):
    """How packs have long said "any type"."""

    __hash__ = str.__hash__

    def __ne__(self, other):
        return False


class OnlyImages(str):
    __hash__ = str.__hash__

    def __ne__(self, other):
        return other != "IMAGE"


@pytest.mark.parametrize(
    ("received", "declared", "loose", "strict"),
    [
        ("IMAGE", "IMAGE", True, True),
        ("IMAGE", "MASK", False, False),
        ("IMAGE", "IMAGE,MASK", True, True),
        ("IMAGE,MASK", "MASK", True, False),
        ("IMAGE, MASK", " MASK ,IMAGE", True, True),
        ("INT", "FLOAT", False, False),
        ("*", "IMAGE", True, True),
        ("IMAGE", "*", True, True),
        ("IMAGE", "MASK,*", True, True),
        ("", "IMAGE", False, False),
        ("", "", True, True),
        ("COMFY_MATCHTYPE_V3", "IMAGE", True, True),
        ("IMAGE", "COMFY_MATCHTYPE_V3", True, True),
        (["a", "b"], ["a", "b"], True, True),
        (["a"], ["b"], False, False),
        (["a"], "COMBO", True, True),
        ("COMBO", ["a"], False, False),
        (["a"], "STRING", False, False),
        (None, "IMAGE", False, False),
        ("image", "IMAGE", False, False),
        (["a"], "*", True, True),
    ],
)
def test_types_fit_when_they_share_a_member(received, declared, loose, strict):
    assert validate_node_input(received, declared) is loose
    assert validate_node_input(received, declared, strict=True) is strict


def test_string_subclasses_decide_for_themselves():
    assert validate_node_input(Anything("x"), "IMAGE") and validate_node_input(OnlyImages("x"), "IMAGE")
    assert not validate_node_input(OnlyImages("x"), "MASK")
