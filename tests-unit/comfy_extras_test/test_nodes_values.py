"""Nodes for texts, numbers, choices, colours and expressions, and what loading all node modules costs."""

import json
import subprocess
import sys

import pytest
import torch

import folder_paths
from comfy_extras import nodes_logic, nodes_number_convert, nodes_preview_any, nodes_primitive, nodes_string
from comfy_extras.expression import evaluate
from comfy_extras.nodes_color import ColorToRGBInt
from comfy_extras.nodes_image_compare import ImageCompare
from comfy_extras.nodes_math import MathExpressionNode
from comfy_extras.nodes_resolution import ResolutionSelector
from comfy_extras.nodes_seed import SeedNode
from comfy_extras.nodes_text import SaveTextNode
from comfy_extras.nodes_toolkit import CreateList
from comfy_extras.nodes_webcam import WebcamCapture


def test_values_pass_unchanged():
    value = object()
    assert all(node.execute(value) == (value,) for node in [*nodes_primitive.NODE_CLASS_MAPPINGS.values(), SeedNode])


@pytest.mark.parametrize(
    "expression, expected",
    [
        ("a + b * 2", 8),
        ("a ** b", 8),
        ("b // a + b % a", 2),
        ("-a if a > b else b", 3),
        ("1 < a < b", True),
        ("a == 2 and not b == 2", True),
        ("sum(values) + max(a, b) + values[0]", 10),
        ("sum(1, 2, 3)", 6),
        ("a << 3 | 1 ^ 0", 17),
        ("round(sqrt(a), 2)", 1.41),
        ("int(2.9) + ceil(0.1) + floor(0.9)", 3),
        ("3 in values", True),
        ("~a", -3),
        ("a or b", 2),
        ("0 or b", 3),
    ],
)
def test_expressions_are_evaluated(expression, expected):
    assert evaluate(expression, {"a": 2, "b": 3, "values": [2, 3]}) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os')",
        "a.real",
        "(lambda: 1)()",
        "[x for x in values]",
        "'text'",
        "open",
        "print(1)",
        "a := 1",
        "x = 1",
        "a b",
        "c",
        "f'{a}'",
        "values.append",
        "round(ndigits=1)",
        "getattr(a, a)",
        "a is b",
        "{}",
        "...",
        "None",
        "1j",
    ],
)
def test_everything_but_arithmetic_is_refused(expression):
    with pytest.raises(ValueError, match=r"."):
        evaluate(expression, {"a": 2, "b": 3, "values": [2, 3]})


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "pow(10, 5000)",
        "(10**4000)**4000",
        "1 << 10**9",
        "values * 10**9",
        "[0] * 10**9",
        "1/0",
        "sqrt(-1)",
        "values[9]",
        "-" * 5000 + "1",
        "(" * 300 + "1" + ")" * 300,
        "+".join("1" * 5000),
        "9" * 20000,
        "a + values",
        "*".join(["10**4000"] * 12),
    ],
)
def test_what_is_too_large_deep_or_undefined_ends_in_an_error(expression):
    with pytest.raises(ValueError, match=r"."):
        evaluate(expression, {"a": 2, "values": [2, 3]})


def test_math_node_gives_three_types_and_refuses_results_that_are_not_numbers():
    assert MathExpressionNode.execute("a / 2", {"a": 5}).args == (2.5, 2, True)
    for expression in ("", "  ", "values", "1e308 * 10", "10 ** 400", "log(0)"):
        with pytest.raises(ValueError, match=r"."):
            MathExpressionNode.execute(expression, {"a": 5})


@pytest.mark.parametrize(
    "value, expected",
    [
        (True, (1.0, 1)),
        (2.9, (2.9, 2)),
        (" 12 ", (12.0, 12)),
        ("1e3", (1000.0, 1000)),
        ("9007199254740993", (9007199254740992.0, 9007199254740993)),
    ],
)
def test_numbers_from_values(value, expected):
    assert nodes_number_convert.NumberConvertNode.execute(value) == expected


@pytest.mark.parametrize(
    "value, error",
    [
        ("x", ValueError),
        ("", ValueError),
        ("nan", ValueError),
        (float("inf"), ValueError),
        (10**400, ValueError),
        (None, TypeError),
        ([1], TypeError),
    ],
)
def test_a_setting_that_is_not_a_number_is_refused(value, error):
    with pytest.raises(error, match=r"."):
        nodes_number_convert.NumberConvertNode.execute(value)


class Broken:
    def __str__(self):
        raise RuntimeError("broken")


@pytest.mark.parametrize(
    "value, shown", [(None, "None"), ("a", "a"), (1.5, "1.5"), (True, "True"), ({1}, "{1}"), ({"a": [1]}, json.dumps({"a": [1]}, indent=4))]
)
def test_any_value_is_shown(value, shown):
    assert nodes_preview_any.PreviewAny().main(value) == {"ui": {"text": (shown,)}, "result": (shown,)}


def test_tensors_and_broken_objects_are_shown():
    assert nodes_preview_any.as_text(torch.arange(3)) == "tensor([0, 1, 2])"
    assert "Broken" in nodes_preview_any.as_text(Broken()) and "RuntimeError" in nodes_preview_any.as_text(Broken())
    loop = []
    loop.append(loop)
    assert nodes_preview_any.as_text(loop) == "[[...]]"


def test_switch_asks_for_the_branch_it_needs():
    node = nodes_logic.SwitchNode
    assert node.check_lazy_status(True) == ["on_true"] and node.check_lazy_status(False, None, 1) == ["on_false"]
    assert node.check_lazy_status(True, None, 1) == []
    assert node.check_lazy_status(True, on_false=None) == node.check_lazy_status(False, on_true=None) == []  # what is not connected
    assert node.execute(True, on_true=1).args == (1,) and node.execute(False, on_false=2).args == (2,)


def test_truth_nodes_follow_javascripts_truth():
    assert nodes_logic.NotNode.execute([]) == (True,)
    for values, both, either in (({}, True, False), ({"value0": 1, "value1": 0}, False, True)):
        assert nodes_logic.AndNode.execute(values).args == (both,) and nodes_logic.OrNode.execute(values).args == (either,)
    assert nodes_logic.CustomComboNode.validate_inputs("anything", option1="x") is True
    assert nodes_logic.CustomComboNode.execute("b", 1, option1="a").args == ("b", 1)
    assert CreateList.execute({"input0": [1], "input1": [2, 3]}).args == ([1, 2, 3],)


def test_format_fills_fields_but_reads_nothing_private():
    node = nodes_string.StringFormat
    assert node.execute({"a": 1, "b": 2.345}, "{a:>3}|{b:.1f}|{{}}").args == ("  1|2.3|{}",)
    for field in ("{a.__class__}", "{a.real.__doc__}", "{a[__x]}", "{b:{a.__class__}}"):
        with pytest.raises(ValueError, match="private"):
            node.execute({"a": 1, "b": 2}, field)
    with pytest.raises(KeyError):
        node.execute({}, "{a}")


def test_text_nodes_change_and_compare_texts():
    nodes = nodes_string
    assert nodes.StringConcatenate.execute("a", "b", "-") == ("a-b",)
    assert nodes.StringSubstring.execute("hello", -3, -1) == ("ll",) and nodes.StringLength.execute("äb") == (2,)
    assert [nodes.CaseConverter.execute("aB c", mode)[0] for mode in nodes._CASES] == ["AB C", "ab c", "Ab c", "Ab C"]
    assert [nodes.StringTrim.execute(" a ", mode)[0] for mode in nodes._TRIMS] == ["a", "a ", " a"]
    assert nodes.StringReplace.execute("aXaX", "X", "y") == ("ayay",)
    assert nodes.StringContains.execute("abc", "B", False) == (True,) and nodes.StringContains.execute("abc", "B", True) == (False,)
    assert [nodes.StringCompare.execute("Abc", "a", mode, False)[0] for mode in nodes._COMPARISONS] == [True, False, False]


def test_regular_expressions_match_extract_and_replace():
    match, extract, replace = nodes_string.RegexMatch.execute, nodes_string.RegexExtract.execute, nodes_string.RegexReplace.execute
    assert match("x1", r"\d", True, False, False) == (True,) and match("x", "(", True, False, False) == (False,)
    content = "a1 b2\nc"
    results = [extract(content, r"(\w)(\d)", mode, True, False, False, 2)[0] for mode in nodes_string.RegexExtract.MODES]
    assert results == ["a1", "a\nb", "1", "1\n2"]
    assert extract(content, r"\w\d", "All Groups", True, False, False, 0) == ("",)
    assert extract(content, "(", "First Match", True, False, False, 1) == ("",)
    assert extract("t", "(x)?t", "First Group", True, False, False, 1) == ("",)
    assert replace(content, r"(\w)(\d)", r"\2\1", count=1) == ("1a b2\nc",)


def test_json_nodes_read_values_by_key():
    extract = nodes_string.JsonExtractString.execute
    content = '{"a": 1, "b": null}'
    assert [extract(content, key)[0] for key in "abc"] == ["1", "", ""] and extract("[1]", "a") == ("",) and extract("x", "a") == ("",)
    assert extract("[" * 100_000, "a") == ("",)
    assert nodes_string.ConvertDictionaryToString.execute({"ä": 1}, 0) == ('{"ä": 1}',)
    assert nodes_string.ConvertArrayToString.execute([1], 2) == ("[\n  1\n]",)


def test_colours_are_parsed_and_resolutions_computed():
    assert ColorToRGBInt.execute("#ff800033") == (0xFF8000, "#ff8000", 0.2)
    with pytest.raises(ValueError, match="not a colour"):
        ColorToRGBInt.execute("red")
    assert ResolutionSelector.execute("16:9 (Widescreen)", 1.0, 8) == (1368, 768)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for kind in ("input", "output", "temp"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    return tmp_path


def test_text_is_saved_and_json_indented(folders):
    answer = SaveTextNode.execute('{"ä":1}', "notes/x", "json")
    assert answer["ui"]["files"] == [{"filename": "x_00001.json", "subfolder": "notes", "type": "output"}]
    assert (folders / "output/notes/x_00001.json").read_text(encoding="utf-8") == '{\n  "ä": 1\n}'
    for number, text in enumerate(("{not json", "[" * 100_000), 1):
        SaveTextNode.execute(text, "y", "json")
        assert (folders / f"output/y_{number:05}.json").read_text() == text
    for kind in ("md", "json"):
        SaveTextNode.execute('"half \ud83d"', f"half {kind}", kind)
        assert (folders / f"output/half {kind}_00001.{kind}").read_text(encoding="utf-8") == '"half \ufffd"'
    with pytest.raises(ValueError, match="exe"):
        SaveTextNode.execute("x", "y", "exe")


def test_comparison_writes_both_sides(folders):
    shown = ImageCompare().compare(image_a=torch.rand(1, 4, 4, 3))["ui"]
    assert len(shown["a_images"]) == 1 and shown["b_images"] == []
    assert (folders / "temp" / shown["a_images"][0]["filename"]).is_file()


def test_webcam_picture_is_one_image(folders):
    shown = ImageCompare().compare(image_a=torch.rand(1, 4, 4, 3))["ui"]["a_images"][0]
    name = f"{shown['filename']} [temp]"
    (images,) = WebcamCapture().load_capture(name, width=0, height=0, capture_on_queue=True)
    assert images.shape == (1, 4, 4, 3) and len(WebcamCapture.IS_CHANGED(name, 0, 0, True)) == 64


def test_node_modules_load_without_numeric_libraries():
    code = (
        "import sys, glob, importlib, comfy_api.latest\n"
        "for path in sorted(glob.glob('comfy_extras/*.py')): importlib.import_module(path[:-3].replace('/', '.'))\n"
        "print([name for name in ('torch', 'numpy', 'PIL', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
