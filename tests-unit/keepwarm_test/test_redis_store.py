"""Results in Redis: rights, expiry, lost connections, passwords and sockets."""

import asyncio

import pytest
from store_servers import running_redis
from stored_values import context, provider, run, same, value


def test_redis_a_reader_needs_no_more_rights_than_documented(redis_server, monkeypatch, tmp_path):
    async def scenario():
        writer = provider(f"redis://127.0.0.1:{redis_server.port}?prefix=keepwarm")
        await writer.on_store(context(), value())
        await writer.store._connected().execute_command(
            "ACL", "SETUSER", "worker", "on", ">pass", "~keepwarm:*", "resetchannels", "-@all", "+getrange"
        )
        monkeypatch.setenv("KEEPWARM_REDIS_USERNAME", "worker")
        monkeypatch.setenv("KEEPWARM_REDIS_PASSWORD", "pass")
        reader = provider(f"redis://127.0.0.1:{redis_server.port}?prefix=keepwarm&mode=ro")
        assert same(await reader.on_lookup(context()), value()) and await reader.on_lookup(context(1)) is None
        with pytest.raises(Exception, match="(?i)permission"):
            await reader.store.put(context(1).cache_key_hash, [b"x"], [])
        await writer.aclose()
        await reader.aclose()

    asyncio.run(scenario())


def test_redis_expires_and_reconnects(redis_server, tmp_path):
    async def scenario():
        one = provider(f"redis://127.0.0.1:{redis_server.port}?ttl=1000&prefix={tmp_path.name}")
        await one.on_store(context(), value(2_000_000))
        client = one.store._connected()
        assert all([0 < await client.ttl(name) <= 1000 for name in await client.keys(f"{tmp_path.name}:*")])
        redis_server.stop()
        with pytest.raises(Exception, match="(?i)connect|refused|closed"):
            await one.on_lookup(context())
        with pytest.raises(Exception, match="(?i)connect|refused|closed"):
            await one.on_store(context(), value())
        redis_server.start()
        assert await one.on_lookup(context()) is None
        await one.on_store(context(), value())
        assert same(await one.on_lookup(context()), value())
        await one.aclose()

    asyncio.run(scenario())


def test_redis_takes_the_password_from_the_environment_or_a_file(tmp_path, monkeypatch):
    (tmp_path / "password").write_text("pass word\n")
    with running_redis("--requirepass", "pass word") as server:
        for name, content in (("KEEPWARM_REDIS_PASSWORD", "pass word"), ("KEEPWARM_REDIS_PASSWORD_FILE", str(tmp_path / "password"))):
            monkeypatch.setenv(name, content)
            one = provider(f"redis://127.0.0.1:{server.port}")
            monkeypatch.delenv(name)
            assert run(one.on_store(context(), value()), one.on_lookup(context()))[1] is not None
        with pytest.raises(Exception, match="(?i)auth"):
            run(provider(f"redis://127.0.0.1:{server.port}").on_lookup(context()))


def test_redis_speaks_through_a_socket(tmp_path):
    with running_redis("--unixsocket", str(tmp_path / "r.sock")):
        one = provider(f"unix://{tmp_path}/r.sock?db=3")
        assert run(one.on_store(context(), value()), one.on_lookup(context()))[1] is not None
