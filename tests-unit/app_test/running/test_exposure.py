"""What is said at start about who may use the server."""

import argparse

import pytest

from app.running.exposure import say_who_may_use


@pytest.mark.parametrize(
    ("listen", "cors", "expected"),
    [
        ("127.0.0.1", None, []),
        ("0.0.0.0,::", None, ["whoever can reach port 8188"]),
        ("192.168.1.5", "*", ["whoever can reach port 8188", "pages of every site"]),
        ("127.0.0.1", "https://a.example", ["pages of https://a.example"]),
    ],
)
def test_one_line_for_each_way_in(listen, cors, expected, caplog):
    caplog.set_level("INFO")
    say_who_may_use(argparse.Namespace(listen=listen, port=8188, enable_cors_header=cors))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(expected) and all(part in line for part, line in zip(expected, said, strict=True))
