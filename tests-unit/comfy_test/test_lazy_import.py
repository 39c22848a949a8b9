import sys
import types

from comfy.lazy_import import lazy_module


def test_a_module_is_imported_at_its_first_use(tmp_path, monkeypatch):
    (tmp_path / "found_when_used.py").write_text("value = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = lazy_module("found_when_used")
    assert "found_when_used" not in sys.modules
    assert module.value == 7
    assert "found_when_used" in sys.modules


def test_replaced_functions_of_our_modules_are_seen(monkeypatch):
    monkeypatch.setitem(sys.modules, "comfy.replaceable", types.SimpleNamespace(answer=lambda: "ours"))
    module = lazy_module("comfy.replaceable")
    assert module.answer() == "ours"
    monkeypatch.setattr(sys.modules["comfy.replaceable"], "answer", lambda: "a pack's")
    assert module.answer() == "a pack's"
