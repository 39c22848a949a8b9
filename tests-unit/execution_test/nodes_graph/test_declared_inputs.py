"""What classes declare about their inputs is asked for as seldom as can be, and read in every form that packs write."""

import pytest

from comfy_execution.nodes_graph.declared_inputs import DeclaredInputs, get_input_info
from comfy_execution.nodes_graph.schema_class import SchemaNode


def declare(**sections):
    return type("Declared", (), {"INPUT_TYPES": classmethod(lambda cls: sections)})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", ("INT", "required", {"min": 1})),
        ("b", (["x", "y"], "optional", {})),
        ("c", ("PROMPT", "hidden", {})),
        ("d", ("UNIQUE_ID", "hidden", {})),
        ("e", ("IMAGE", "optional", {})),
        ("f", ("INT", "required", {})),
        ("nobody", (None, None, None)),
    ],
)
def test_inputs_are_found_in_their_section(name, expected):
    class_def = declare(
        required={"a": ("INT", {"min": 1}), "f": ["INT", "not options"]},
        optional={"b": (["x", "y"],), "e": "IMAGE"},
        hidden={"c": "PROMPT", "d": ["UNIQUE_ID"], "a": "PROMPT"},
    )
    assert get_input_info(class_def, name) == expected
    assert get_input_info(None, name, class_def.INPUT_TYPES()) == expected


def test_sections_may_be_missing_or_none():
    assert get_input_info(declare(optional=None), "a") == (None, None, None)


class TakesAnything(dict):
    """How packs declare inputs without naming them: an empty mapping that has every name."""

    def __contains__(self, name):
        return True

    def __getitem__(self, name):
        return ("*",)


def test_an_empty_section_may_claim_every_name():
    class_def = declare(required={}, optional=TakesAnything())
    assert get_input_info(class_def, "anything") == ("*", "optional", {})


def test_a_class_is_asked_once_and_a_failing_one_again():
    asked = []

    class Moody:
        @classmethod
        def INPUT_TYPES(cls):
            asked.append(1)
            if len(asked) == 1:
                raise OSError("folder gone")
            return {"required": {"a": ("INT",)}}

    declared = DeclaredInputs()
    with pytest.raises(OSError):
        declared.of_class(Moody)
    assert declared.find(Moody, "a", {}) == declared.find(Moody, "a", {"x": 1}) == ("INT", "required", {})
    assert len(asked) == 2


def test_groups_are_expanded_for_the_node_at_hand():
    asked = []

    class Group(SchemaNode):
        @classmethod
        def INPUT_TYPES(cls, live_inputs=None):
            asked.append(live_inputs)
            return {"required": {name: ("INT", {"lazy": True}) for name in live_inputs}}

    declared = DeclaredInputs()
    one, two = {"g.0": 1, "g.1": 2}, {"g.2": 3}
    assert declared.find(Group, "g.0", one)[2] == declared.find(Group, "g.1", one)[2] == {"lazy": True}
    assert declared.find(Group, "g.1", two) == (None, None, None)
    assert declared.find(Group, "g.2", two)[0] == "INT"
    assert asked == [one, two]
