"""What ``python -m fleet up`` is given, and what it says when it cannot start."""

import importlib.util

import pytest

from fleet import __main__ as command
from fleet.on_ray.installed import is_installed
from fleet.settings import ScaleSettings, UpSettings


def test_flags_after_the_dashes_go_to_the_servers():
    settings = command.parse(["up", "--servers", "3", "--port", "9000", "--", "--ram-model-cache-mb", "2000", "--", "x"])
    assert settings == UpSettings(
        servers=3, port=9000, allowed_host=[], flags=("--ram-model-cache-mb", "2000", "--", "x"), folder="user/fleet"
    )


def test_a_fleet_that_runs_is_scaled_by_a_command_of_its_own():
    assert command.parse(["scale", "--servers", "3", "--address", "a:1"]) == ScaleSettings(3, "a:1", "user/fleet")
    assert command.parse(["up", "--servers", "1", "--most-servers", "4"]).most_servers == 4


@pytest.mark.parametrize("arguments", [[], ["up", "--servers", "0"], ["up", "--cpu"], ["scale"], ["scale", "--servers", "0"]])
def test_wrong_arguments_end_it(arguments, capsys):
    with pytest.raises(SystemExit):
        command.parse(arguments)


def test_without_ray_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not is_installed()
    monkeypatch.setattr("sys.platform", "linux")
    assert command.main(["up"]) == 2
    assert "requirements-fleet.txt" in capsys.readouterr().err


def test_elsewhere_than_on_linux_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr("sys.platform", "darwin")
    assert command.main(["up"]) == 2
    assert "needs Linux" in capsys.readouterr().err
