"""JSON without NaN, Infinity and surprises."""

import json

import pytest

from app.files.strict_json import dumps, dumps_by_members


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True, "ü"]}, '{"a":[1,2.5,null,true,"\\u00fc"]}'),
        (float("nan"), "null"),
        (float("inf"), "null"),
        ({"x": (float("-inf"), {"y": float("nan")})}, '{"x":[null,{"y":null}]}'),
        ({(1, 2): 1}, '{"(1, 2)":1}'),
        ({None: 1}, '{"null":1}'),
        ({"s": {3, 1, 2}}, '{"s":[1,2,3]}'),
        ("\ud800", '"\\ud800"'),
        (10**30, str(10**30)),
        ({float("nan"): 1}, '{"nan":1}'),
    ],
)
def test_values_become_strict_json(value, text):
    assert dumps(value) == text


def test_infinity_can_be_clamped():
    assert json.loads(dumps([float("inf"), float("-inf"), float("nan")], clamp_infinity=True)) == [
        1.7976931348623157e308,
        -1.7976931348623157e308,
        None,
    ]


class Scalar:
    ndim = 0

    def item(self):
        return 4


@pytest.mark.parametrize(("value", "text"), [(Scalar(), "4"), (b"x", '"<builtins.bytes>"'), ([object()], '["<builtins.object>"]')])
def test_unknown_objects_are_described(value, text):
    assert dumps(value) == text


def test_unknown_objects_can_be_refused():
    with pytest.raises(TypeError):
        dumps({"a": object()}, unknown=None)


def test_a_container_in_itself_is_refused():
    endless: dict = {}
    endless["again"] = [endless]
    with pytest.raises(ValueError):
        dumps(endless)


def test_a_container_used_twice_is_fine():
    shared = [float("nan")]
    assert dumps([shared, shared]) == "[[null],[null]]"


@pytest.mark.parametrize("value", [{}, {"a": 1, "b": {"c": [float("nan")]}}, {(1, 2): "x", None: {3}}, [1, 2], None, "text"])
def test_members_one_by_one_give_the_same_text(value):
    assert dumps_by_members(value) == dumps(value)


def test_a_large_answer_is_encoded_in_small_parts(monkeypatch):
    lengths = []
    encode = json.dumps
    monkeypatch.setattr(json, "dumps", lambda value, **options: lengths.append(len(text := encode(value, **options))) or text)
    dumps_by_members({str(index): ["x" * 100] * 10 for index in range(1000)})
    assert len(lengths) == 1000 and max(lengths) < 2000
