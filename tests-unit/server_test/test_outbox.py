"""Outbox: order, replacing what is out of date, bounds, and sockets that are slow or dead."""

import asyncio

import pytest

from app.sockets import outbox as outbox_module
from app.sockets.outbox import Frame, Outbox


class Socket:
    """Takes frames once ``gate`` is set; raises *error* instead when there is one."""

    def __init__(self, error=None):
        self.gate = asyncio.Event()
        self.sent = []
        self.error = error

    async def send_str(self, text):
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.sent.append(text)

    async def send_bytes(self, data):
        await self.send_str(data)


@pytest.fixture
async def made(monkeypatch):
    """``made(error)``: (outbox, socket, list of cut-offs) with small bounds."""
    monkeypatch.setattr(outbox_module, "RELAXED_FRAMES", 3)
    monkeypatch.setattr(outbox_module, "MAX_FRAMES", 20)
    monkeypatch.setattr(outbox_module, "MAX_BYTES", 1000)
    opened = []

    def make(error=None):
        socket, cuts = Socket(error), []
        box = Outbox(socket, "me", lambda: cuts.append(1))
        opened.append(box)
        return box, socket, cuts

    yield make
    for box in opened:
        await box.close()


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_frames_are_sent_in_order_as_their_kind(made):
    box, socket, _ = made()
    for payload in ("a", b"b", "c"):
        box.put(Frame(payload))
    socket.gate.set()
    await settle()
    assert socket.sent == ["a", b"b", "c"]
    assert box.waiting_bytes == len(box) == 0


async def test_while_little_waits_nothing_is_replaced(made):
    box, socket, _ = made()
    for number in range(3):
        box.put(Frame(f"p{number}", "progress"))
    socket.gate.set()
    await settle()
    assert socket.sent == ["p0", "p1", "p2"]


async def test_when_much_waits_the_newest_of_a_topic_stays_in_its_place(made):
    box, socket, _ = made()
    await settle()
    for frame in (Frame("a"), Frame("p1", "progress"), Frame("b"), Frame("p2", "progress"), Frame("q1", "other"), Frame("p3", "progress")):
        box.put(frame)
    socket.gate.set()
    await settle()
    assert socket.sent == ["a", "b", "q1", "p3"]


async def test_a_million_reports_to_a_stuck_client_take_no_memory(made):
    box, _, cuts = made()
    for number in range(10_000):
        box.put(Frame(f"{number}", "progress"))
    assert len(box) <= outbox_module.RELAXED_FRAMES + 1
    assert not cuts


@pytest.mark.parametrize("payload", ["x", "x" * 100])
async def test_a_client_that_receives_nothing_is_cut_off_once(made, payload, caplog):
    box, _, cuts = made()
    for _ in range(50):
        box.put(Frame(payload))
    assert cuts == [1]
    assert len(box) == box.waiting_bytes == 0
    assert "disconnected" in caplog.text


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), RuntimeError("closing")])
async def test_a_dead_socket_drops_everything(made, error):
    box, socket, _ = made(error)
    box.put(Frame("a"))
    box.put(Frame("b"))
    socket.gate.set()
    await settle()
    box.put(Frame("c"))
    assert len(box) == 0 and socket.sent == []


async def test_finishing_sends_what_waits_and_takes_no_more(made):
    box, socket, _ = made()
    box.put(Frame("a"))
    box.finish()
    box.put(Frame("b"))
    socket.gate.set()
    await settle()
    assert socket.sent == ["a"]


async def test_one_stuck_client_does_not_hold_up_another(made):
    stuck, _, _ = made()
    quick, socket, _ = made()
    socket.gate.set()
    for box in (stuck, quick):
        box.put(Frame("a"))
    await settle()
    assert socket.sent == ["a"]
