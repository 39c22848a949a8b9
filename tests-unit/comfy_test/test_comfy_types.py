"""The annotations that V1 nodes import."""

import pytest

from comfy import comfy_types
from comfy.comfy_types import IO, CheckLazyMixin, ComfyNodeABC
from comfy.comfy_types.node_typing import InputTypeOptions


def test_every_public_name_exists():
    for name in comfy_types.__all__:
        assert getattr(comfy_types, name)
    assert InputTypeOptions(default=1) == {"default": 1}


def test_io_members_are_their_type_names():
    assert str(IO.IMAGE) == IO.IMAGE == "IMAGE" and f"{IO.MODEL}" == "MODEL"
    assert (IO.ANY, IO.NUMBER, IO.PRIMITIVE) == ("*", "FLOAT,INT", "STRING,FLOAT,INT,BOOLEAN")
    assert {IO.INT: 1}["INT"] == 1


@pytest.mark.parametrize(
    ("declared", "received", "differs"),
    [
        (IO.ANY, "ANYTHING", False), (IO.IMAGE, "*", False), (IO.NUMBER, "INT", False), (IO.INT, "FLOAT,INT", False),
        (IO.NUMBER, IO.PRIMITIVE, False), (IO.INT, "FLOAT", True), (IO.INT, "FLOAT,STRING", True), (IO.INT, 3, True),
    ],
)  # fmt: skip
def test_inequality_follows_links(declared, received, differs):
    assert (declared != received) is differs


def test_lazy_mixin_asks_for_what_has_no_value():
    assert CheckLazyMixin().check_lazy_status(a=None, b=0, c=None) == ["a", "c"]


def test_node_base_needs_input_types():
    class Node(ComfyNodeABC):
        pass

    with pytest.raises(TypeError, match="INPUT_TYPES"):
        Node()
    assert ComfyNodeABC.INPUT_TYPES() == {"required": {}}
