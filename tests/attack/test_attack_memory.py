"""A server that may not have much memory: picture bombs, packed bodies and wide settings end as refusals, not the server."""

import json
import urllib.error

import picture_bombs
import pytest
from heavy_requests import heavy_requests
from live_server import Client
from memory_limits import little_memory
from test_attack_http import fire, repeat
from watched_server import queue_problem

MIB = 1 << 20
LIMIT_BYTES = 3000 * MIB


def load_and_show(name):
    """A prompt that reads a picture."""
    load = {"class_type": "LoadImage", "inputs": {"image": name}}
    return {"1": load, "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}


@pytest.mark.attack
@pytest.mark.timeout(300)
def test_little_memory(attacked, dice, seconds):
    server = attacked("little memory")
    live = server.server
    bombs = {"frames.gif": picture_bombs.gif(4000, 4000, 3000), "wide.gif": picture_bombs.gif(30_000, 30_000, 1)}
    bombs |= {"large.png": picture_bombs.png(16_000, 16_000)}
    for name, content in bombs.items():
        (live.base / "input" / name).write_bytes(content)
    assert not queue_problem(live)  # imports what it needs
    client = Client(live)
    client.socket.settimeout(120)

    def once(left_s):
        for name in bombs:
            status, answer = live.post("/prompt", {"prompt": load_and_show(name), "client_id": client.client_id})
            result.tries += 1
            if status != 200:
                result.wrong_results.append(f"{name}: {json.dumps(answer)[:300]}")
                continue
            ends = (message["type"] for message in client.messages() if isinstance(message, dict))
            if next(kind for kind in ends if kind in ("execution_error", "execution_success")) == "execution_success" and "gif" in name:
                result.wrong_results.append(f"{name} was decoded")
            for query in ("preview=webp", "channel=rgb", "channel=a"):
                try:
                    live.get_bytes(f"/view?filename={name}&type=input&{query}")
                except urllib.error.HTTPError as error:
                    if error.code >= 500:
                        result.wrong_results.append(f"{name} {query}: {error.code}")
        fire(live.port, result, heavy_requests(dice), left_s)

    with little_memory(live.process.pid, LIMIT_BYTES), server.watch() as result:
        repeat(min(seconds, 30), once)
    client.close()
    server.check(result, rss_growth_bytes=LIMIT_BYTES)
