"""Ray is told not to report usage, to ask for a token, and to stay on loopback, before it is imported."""

import stat

import pytest

from fleet.on_ray.environment import prepare


def test_usage_reports_are_off_the_token_is_on_and_loopback_is_all(tmp_path):
    environment = {"RAY_USAGE_STATS_ENABLED": "1", "RAY_AUTH_MODE": "disabled"}
    path = prepare(tmp_path, environment)
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0" and environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0" and environment["RAY_worker_niceness"] == "0"
    assert environment["RAY_memory_monitor_refresh_ms"] == "0"
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(path) and len(path.read_text()) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_token_is_made_once_and_a_given_one_is_used(tmp_path):
    first, given = {}, {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "mine")}
    (tmp_path / "mine").write_text("secret")
    (tmp_path / "mine").chmod(0o600)
    path = prepare(tmp_path, first)
    token = path.read_text()
    assert prepare(tmp_path, {}).read_text() == token
    assert prepare(tmp_path, given, loopback=False) == tmp_path / "mine" and "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in given
    path.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        prepare(tmp_path, {})
