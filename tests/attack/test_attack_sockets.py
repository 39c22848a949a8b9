"""WebSockets and connections under fire: junk frames, sockets that take nothing, connections that never finish."""

import contextlib
import random
import socket
import threading
import time

import pytest
from hostile_frames import attack, open_socket

MIB = 1 << 20
ATTACKERS = 4
HALF_OPEN = 600
RSS_GROWTH_BYTES = 300 * MIB


def flood(port, result, dice, seconds):
    """Several attackers at once, for *seconds*; an open socket that hears nothing but wants nothing either stays among them."""
    ends_s = time.monotonic() + seconds
    seeds = [dice.randrange(1 << 30) for _ in range(ATTACKERS)]

    def work(seed):
        own = random.Random(seed)
        while time.monotonic() < ends_s:
            attack(port, own)
            result.tries += 1

    attackers = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in seeds]
    for attacker in attackers:
        attacker.start()
    for attacker in attackers:
        attacker.join(seconds + 60)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "area, share, most_lines", [("sockets sample", 0.5, 200), pytest.param("sockets", 1.0, 300, marks=pytest.mark.attack)]
)
def test_a_flood_of_junk(attacked, dice, seconds, area, share, most_lines):
    server = attacked(area)
    with server.watch() as result:
        flood(server.server.port, result, dice, seconds * share)
    assert len(server.server.log().splitlines()) < most_lines
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)


@pytest.mark.attack
@pytest.mark.timeout(300)
def test_connections_that_never_finish(attacked, dice, seconds):
    """Half requests, bodies that stall and sockets that take nothing, more of them than the process may open files."""
    server = attacked("half-open")
    limit_files(server.server.process.pid, 512)
    starts = [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"POST /prompt HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"]
    opened = []
    with server.watch() as result, contextlib.ExitStack() as all_opened:
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s and result.tries < HALF_OPEN * 4:
            with contextlib.suppress(OSError):
                one = all_opened.enter_context(socket.create_connection(("127.0.0.1", server.server.port), 5))
                one.sendall(dice.choice(starts))
                opened.append(one)
            if result.tries % 20 == 0:
                with contextlib.suppress(OSError):
                    all_opened.enter_context(contextlib.closing(open_socket(server.server.port, f"?clientId=idle{result.tries}")))
            result.tries += 1
            for old in opened[:-HALF_OPEN]:
                old.close()
            del opened[:-HALF_OPEN]
            assert server.server.get("/prompt")["exec_info"]["queue_remaining"] == 0
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)


def limit_files(pid, count):
    """Let process *pid* open at most *count* files from now on (Linux)."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("needs prlimit")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (count, count))
