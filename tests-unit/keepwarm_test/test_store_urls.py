"""URLs and settings: what is accepted, what is refused with advice, and that no secret is shown."""

import pytest

from comfy_api.latest import Caching
from custom_nodes.keepwarm import activation
from custom_nodes.keepwarm.activation import ServerTraits, make_provider, server_traits
from custom_nodes.keepwarm.detached_provider import DetachedProvider
from custom_nodes.keepwarm.namespaced_provider import NamespacedProvider
from custom_nodes.keepwarm.result_provider import ResultProvider
from custom_nodes.keepwarm.settings import Settings, read_settings
from custom_nodes.keepwarm.store_urls import BadUrl, parse_url, redacted


@pytest.mark.parametrize(
    "text, advice",
    [
        ("ftp://x", "file, redis"),
        ("nonsense", "file, redis"),
        ("file://relative/dir", "three slashes"),
        ("file://", "three slashes"),
        ("unix://sock", "three slashes"),
        ("redis://", "host is missing"),
        ("s3://", "bucket is missing"),
        ("redis://h?ttl=0", "above 0"),
        ("redis://h?ttl=nan", "above 0"),
        ("file:///x?max_gb=-1", "above 0"),
        ("file:///x?mode=wo", "ro"),
        ("file:///x?ttl=3", "no option"),
        ("redis://u:secret@h", "KEEPWARM_REDIS_PASSWORD"),
        ("s3://secret@b", "AWS_SECRET_ACCESS_KEY"),
        ("az://secret@b", "AZURE"),
        ("redis://u:se/secret@h", "KEEPWARM_REDIS_PASSWORD"),
        ("redis://u:se?secret@h", "KEEPWARM_REDIS_PASSWORD"),
        ("redis://u:se#secret@h", "KEEPWARM_REDIS_PASSWORD"),
        ("redis://h?password=secret", "no option"),
        ("s3://b?access_key=secret&region=x", "no option"),
        ("s3://b?endpoint=http://u:secret@h:1", "AWS_SECRET_ACCESS_KEY"),
        ("s3://b?endpoint=h:1", "http://"),
        ("ftp://u:secret@h", "KEEPWARM"),
        ("ftp://h?key=secret", "file, redis"),
        ("redis://[::1", "IPv6"),
        ("redis://h:port", "ort"),
        ("s3://b:80", "endpoint"),
        ("file:///srv/a#b", "%23"),
        ("redis://h/name", "number of a database"),
        ("redis://h?db=x", "number of a database"),
        ("redis://h?ttl=0.5", "1 or more"),
        ("", "file, redis"),
        ("file://secret@h/x", "KEEPWARM"),
    ],
)
def test_bad_urls_say_what_to_write(text, advice):
    with pytest.raises(BadUrl) as caught:
        parse_url(text)
    assert advice in str(caught.value) and "secret" not in str(caught.value)


def test_good_urls_are_taken_apart():
    url = parse_url("redis://host:1/2?ttl=60&mode=ro&max_value_mb=1.5")
    assert (url.place, url.host, url.is_read_only, url.number("ttl", 0), url.number("db", 7)) == ("redis://host:1/2", "host:1", True, 60, 7)
    assert parse_url("file:///a%20b").path == "/a b"


def test_secrets_in_urls_are_redacted():
    assert redacted("redis://u:secret@host/1") == "redis://***@host/1" and redacted("file:///x@y") == "file:///x@y"
    assert redacted("redis://h?ttl=3&password=secret") == "redis://h?ttl=3&password=***" and redacted("://[") == "://["


def test_settings_come_from_flags_first_then_the_environment(tmp_path):
    (tmp_path / "key").write_bytes(b"k\n")
    flags = type("Args", (), {"cache_provider": ["file:///a"], "cache_namespace": ""})
    environment = {
        "KEEPWARM_CACHE_PROVIDERS": "file:///b  file:///a",
        "KEEPWARM_CACHE_KEY_FILE": str(tmp_path / "key"),
        "KEEPWARM_CACHE_NAMESPACE": "team",
        "KEEPWARM_METRICS": "on",
    }
    assert read_settings(flags, environment) == Settings(("file:///a", "file:///b"), b"k", "team", True)
    assert read_settings(object(), {}) == Settings((), None, "", False)
    with pytest.raises(BadUrl, match="KEEPWARM_CACHE_KEY_FILE"):
        read_settings(flags, {"KEEPWARM_CACHE_KEY_FILE": str(tmp_path / "none")})


def test_provider_from_url(tmp_path):
    one = make_provider(parse_url(f"file://{tmp_path}?mode=ro&max_value_mb=2"), Settings((), None, "", False), ServerTraits(True, True))
    assert one.read_only and one.max_value_bytes == 2 << 20 and one.url == f"file://{tmp_path}?mode=ro&max_value_mb=2"


THIS_SERVER, PATCHED, PLAIN = {"guards_providers": True, "keys_cover_machine": True}, {"guards_providers": True}, {}


@pytest.mark.parametrize(
    "declared, wrapped", [(THIS_SERVER, []), (PATCHED, [NamespacedProvider]), (PLAIN, [DetachedProvider, NamespacedProvider])]
)
def test_each_kind_of_server_gets_what_it_does_not_do_itself(monkeypatch, tmp_path, declared, wrapped):
    monkeypatch.setattr(activation, "Caching", type("Caching", (), declared))
    monkeypatch.setattr(activation, "_deployment", lambda namespace: f"here {namespace}")
    one = make_provider(parse_url(f"file://{tmp_path}"), Settings((), None, "team", False), server_traits())
    found = []
    while not isinstance(one, ResultProvider):
        found.append(type(one))
        one = one.inner
    assert found == wrapped


def test_this_server_declares_what_it_does():
    assert server_traits() == ServerTraits(Caching.guards_providers, Caching.keys_cover_machine) == ServerTraits(True, True)
