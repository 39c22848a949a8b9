"""Values of flags: what is taken, and what is refused with advice."""

import argparse

import pytest

from comfy.flag_values import cache_url, host_name


@pytest.mark.parametrize(
    ("given", "expected"), [("Box.Example", "box.example"), ("[::1]", "::1"), ("fe80::1", "fe80::1"), ("10.0.0.1", "10.0.0.1")]
)
def test_hosts_are_kept_as_a_host_header_names_them(given, expected):
    assert host_name(given) == expected


@pytest.mark.parametrize("given", ["", "https://box.example", "box.example:8188", "user@box"])
def test_a_host_with_more_than_its_name_is_refused(given):
    with pytest.raises(argparse.ArgumentTypeError, match="without a port"):
        host_name(given)


def test_a_place_of_an_unknown_kind_is_refused():
    assert cache_url("file:///srv/results") == "file:///srv/results"
    with pytest.raises(argparse.ArgumentTypeError, match="redis://"):
        cache_url("ftp://host")
