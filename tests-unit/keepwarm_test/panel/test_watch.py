"""Telling pages: one message per change to those that watch, and nothing, not even a look, when none does."""

import asyncio

import pytest

from custom_nodes.keepwarm.panel.watch import EVENT, MOST_WATCHERS, TooManyWatchers, Watch


class Server:
    """A picture that the test changes, the clients' sockets, and what was sent to whom."""

    def __init__(self):
        self.sockets = {"ann": object(), "bob": object()}
        self.used, self.reads, self.sent, self.broken = 0, 0, [], False

    def read(self):
        self.reads += 1
        if self.broken:
            raise OSError("the folder is away")
        empty = {"id": None, "running": False, "receipts": []}
        return {"rows": {}, "prompt": empty, "points": [], "bars": {"used_bytes": self.used}}

    def send(self, event, data, client_id):
        assert event == EVENT
        self.sent.append((client_id, data))

    async def until(self, condition):
        for _ in range(2000):
            if condition():
                return
            await asyncio.sleep(0.002)
        raise AssertionError("it did not come about")

    async def looks(self, count=3):
        """Wait for *count* more looks."""
        before = self.reads
        await self.until(lambda: self.reads >= before + count)


@pytest.fixture
async def watched():
    """(server, watch); the watch looks every 2 ms."""
    server = Server()
    watch = Watch(server.read, server.send, lambda: server.sockets, 0.002)
    yield server, watch
    await watch.close()


async def test_every_change_is_one_message_to_those_who_watch(watched):
    server, watch = watched
    revision, picture = await watch.picture()
    assert revision == 1 and picture["bars"] == {"used_bytes": 0}
    assert watch.start("ann")
    await server.looks()
    assert server.sent == []
    server.used = 7
    await server.until(lambda: server.sent)
    await server.looks()
    assert server.sent == [("ann", {"rev": 2, "bars": {"used_bytes": 7}})]
    assert (await watch.picture())[0] == 2


async def test_nothing_is_read_when_nobody_watches(watched):
    server, watch = watched
    assert watch.start("ann") and watch.start("bob")
    await server.looks()
    watch.stop("ann")
    watch.stop("bob")
    watch.stop("nobody")
    await server.until(lambda: watch._task.done())
    reads = server.reads
    await asyncio.sleep(0.05)
    assert server.reads == reads and watch.watchers == 0
    assert watch.start("ann")
    await server.looks()


async def test_clients_that_leave_or_change_sockets_get_no_messages(watched):
    server, watch = watched
    watch.start("ann")
    watch.start("bob")
    del server.sockets["ann"]
    server.sockets["bob"] = object()
    await server.until(lambda: watch.watchers == 0)


async def test_clients_without_a_socket_and_too_many_are_refused(watched):
    server, watch = watched
    assert not watch.start("stranger")
    server.sockets = {str(index): object() for index in range(MOST_WATCHERS + 1)}
    assert all(watch.start(str(index)) for index in range(MOST_WATCHERS))
    with pytest.raises(TooManyWatchers):
        watch.start(str(MOST_WATCHERS))
    assert watch.start("0")
    server.sockets = {"late": object()}
    assert watch.start("late") and watch.watchers == 1


async def test_a_failing_look_is_logged_once_and_later_looks_count(watched, caplog):
    server, watch = watched
    await watch.picture()
    server.broken = True
    watch.start("ann")
    await server.looks(4)
    assert caplog.text.count("cannot be read") == 1
    server.broken, server.used = False, 3
    await server.until(lambda: server.sent)
