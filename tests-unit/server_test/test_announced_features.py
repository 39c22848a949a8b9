"""Feature flags: of the server, of the command line, of connections."""

import logging
from types import SimpleNamespace

import pytest

from comfy_api import feature_flags
from comfy_api.feature_flags import (
    CLI_FEATURE_FLAG_REGISTRY,
    SERVER_FEATURE_FLAGS,
    get_connection_feature,
    get_server_features,
    supports_feature,
)

SOCKETS = {"new": {"feature_flags": {"a": True, "b": "true", "c": None}}, "old": {"feature_flags": {}}, "odd": {"feature_flags": 5}}


@pytest.fixture
def given(monkeypatch):
    def parse(*flags):
        monkeypatch.setattr(feature_flags, "args", SimpleNamespace(feature_flag=list(flags)))
        return feature_flags._parse_cli_feature_flags()

    return parse


def test_features_are_copied_also_inside():
    copied = get_server_features()
    copied["extension"]["manager"]["more"] = 1
    copied["new"] = 1
    assert "new" not in SERVER_FEATURE_FLAGS and "more" not in SERVER_FEATURE_FLAGS["extension"]["manager"]


@pytest.mark.parametrize(
    ("sid", "name", "value"),
    [("new", "a", True), ("new", "b", "true"), ("new", "x", False), ("old", "a", False), ("odd", "a", False), ("none", "a", False)],
)
def test_features_of_connections(sid, name, value):
    assert get_connection_feature(SOCKETS, sid, name) == value
    assert supports_feature(SOCKETS, sid, name) is (value is True)


def test_the_default_is_for_those_that_say_nothing():
    assert [get_connection_feature(SOCKETS, sid, "z", default=3) for sid in SOCKETS] == [3, 3, 3]
    assert get_connection_feature({}, "none", "z", 3) == 3


@pytest.mark.parametrize(
    ("flag", "parsed"),
    [
        ("show_signin_button=true", {"show_signin_button": True}),
        ("show_signin_button=FALSE", {"show_signin_button": False}),
        ("enable_telemetry", {"enable_telemetry": True}),
        ("unknown", {"unknown": "true"}),
        ("unknown=a=b", {"unknown": "a=b"}),
        (" spaced = 1 ", {"spaced": "1"}),
        ("=x", {}),
        ("", {}),
    ],
)
def test_flags_of_the_command_line(given, flag, parsed):
    assert given(flag) == parsed


@pytest.mark.parametrize("value", ["ture", "yes", "1", ""])
def test_a_switch_that_is_neither_true_nor_false_is_dropped(given, caplog, value):
    with caplog.at_level(logging.WARNING):
        assert given(f"show_signin_button={value}", "kept=1") == {"kept": "1"}
    assert "dropping" in caplog.text


def test_numbers_of_the_registry(given, monkeypatch):
    for kind in ("int", "float"):
        monkeypatch.setitem(CLI_FEATURE_FLAG_REGISTRY, kind, {"type": kind, "default": 0, "description": "d"})
    assert given("int=4", "float=0.5") == {"int": 4, "float": 0.5}
    assert given("int=x", "float=") == {}


def test_every_registered_flag_is_described():
    for info in CLI_FEATURE_FLAG_REGISTRY.values():
        assert info.keys() == {"type", "default", "description"} and info["description"]
