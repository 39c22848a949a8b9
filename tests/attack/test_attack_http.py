"""Every HTTP route under fire: hostile names, bodies, uploads, settings and other users' data."""

import concurrent.futures
import http.client
import json
import time

import picture_bombs
import pytest
from heavy_requests import heavy_requests
from hostile_requests import SECRET, Hostile, hostile_requests, send

MIB = 1 << 20
SENDERS = 4
RSS_GROWTH_BYTES = 700 * MIB
# Twice the bodies that may be in memory at once, and one large picture.
HEAVY_GROWTH_BYTES = 1536 * MIB


def fire(port, result, requests, seconds):
    """Send *requests* from several senders until they or the time are used up, and judge each answer."""
    ends_s = time.monotonic() + seconds

    def one(request):
        if time.monotonic() > ends_s:
            return
        result.tries += 1
        shown = f"{request.why}: {request.method} {request.path[:120]} {request.body[:120]!r}"
        try:
            status, body = send(port, request)
        except (http.client.HTTPException, ConnectionError, ValueError) as error:
            result.wrong_results.append(f"{shown}: no answer ({type(error).__name__})")
            return
        if SECRET.encode() in body or b"root:x:0" in body:
            result.escapes.append(shown)
        if status >= 500 or b"Traceback" in body:
            result.wrong_results.append(f"{shown}: {status} {body[:200]!r}")

    with concurrent.futures.ThreadPoolExecutor(SENDERS) as senders:
        list(senders.map(one, requests))


def plant_secrets(base):
    """A file outside every folder, and links that lead to it."""
    (base.parent / "secret.txt").write_text(SECRET)
    for folder in ("input", "output", "user/default"):
        (base / folder).mkdir(parents=True, exist_ok=True)
        (base / folder / "link").symlink_to(base.parent)


def test_a_sample_of_hostile_requests(attacked, dice, seconds):
    server = attacked("http sample")
    plant_secrets(server.server.base)
    with server.watch() as result:
        requests = list(hostile_requests(dice.randrange(1 << 30)))
        fire(server.server.port, result, dice.sample(requests, 400), seconds)
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)


@pytest.mark.attack
@pytest.mark.timeout(300)
def test_every_route_with_hostile_requests(attacked, dice, seconds):
    server = attacked("http routes")
    plant_secrets(server.server.base)
    with server.watch() as result:
        repeat(seconds, lambda left_s: fire(server.server.port, result, hostile_requests(dice.randrange(1 << 30)), left_s))
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)


def repeat(seconds, once):
    """Call ``once(seconds left)`` at least once, and again until *seconds* are over."""
    ends_s = time.monotonic() + seconds
    once(seconds)
    while (left_s := ends_s - time.monotonic()) > 0:
        once(left_s)


@pytest.mark.attack
@pytest.mark.timeout(300)
def test_requests_that_cost_more_than_their_sender(attacked, dice, seconds):
    server = attacked("http heavy")
    (server.server.base / "input" / "bomb.gif").write_bytes(picture_bombs.gif(8000, 8000, 3000))
    with server.watch() as result:
        repeat(seconds, lambda left_s: fire(server.server.port, result, heavy_requests(dice), left_s))
        settings = server.server.get("/settings")
    assert "inf" not in settings
    server.check(result, rss_growth_bytes=HEAVY_GROWTH_BYTES)


@pytest.mark.attack
@pytest.mark.timeout(300)
def test_no_client_reaches_another_users_data(attacked, dice, seconds):
    """With ``--multi-user``: whatever name a client gives, it sees and changes nothing of another user's."""
    server = attacked("other users", "--multi-user")
    live = server.server
    names = {name: live.post("/users", {"username": name})[1] for name in ("alice", "mallory")}
    alice = live.base / "user" / names["alice"]
    (alice / "workflows").mkdir(parents=True, exist_ok=True)
    (alice / "workflows" / "mine.json").write_text(SECRET)
    (alice / "comfy.settings.json").write_text(json.dumps({"mine": SECRET}))
    kept = {path: path.read_bytes() for path in alice.rglob("*") if path.is_file()}

    def once(left_s):
        fire(live.port, result, user_requests(dice, names), left_s)

    with server.watch() as result:
        repeat(seconds, once)
    result.escapes += [f"{path.name} of another user changed" for path, content in kept.items() if path.read_bytes() != content]
    result.escapes += [str(path) for path in alice.rglob("*") if path.is_file() and path not in kept]
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)


def user_requests(dice, names, count=300):
    """Requests as mallory, or as somebody who is nobody, for what is alice's."""
    targets = [f"..%2F{names['alice']}%2Fworkflows%2Fmine.json", f"{names['alice']}%2Fworkflows%2Fmine.json", "..%2F..%2Fusers.json"]
    targets += [f"workflows%2F..%2F..%2F{names['alice']}%2Fcomfy.settings.json", "%2e%2e%2f" + names["alice"], "workflows%2Fmine.json"]
    users = [names["mallory"], "default", "", "__system", f"../{names['alice']}", f"{names['mallory']}/../{names['alice']}", "x" * 5000]
    users += [names["alice"].upper(), names["alice"] + "%00", names["alice"] + ",x"]
    for _ in range(count):
        headers, target = {"Comfy-User": dice.choice(users)}, dice.choice(targets)
        yield dice.choice(
            [
                Hostile("GET", f"/userdata/{target}", b"", headers, "read"),
                Hostile("POST", f"/userdata/{target}", b"owned", headers, "write"),
                Hostile("DELETE", f"/userdata/{target}", b"", headers, "delete"),
                Hostile("POST", f"/userdata/{target}/move/stolen.json?overwrite=true", b"", headers, "take"),
                Hostile("POST", f"/userdata/user.css/move/{target}?overwrite=true", b"", headers, "plant"),
                Hostile("GET", f"/userdata?dir=..%2F{names['alice']}&recurse=true", b"", headers, "list"),
                Hostile("GET", f"/v2/userdata?path=..%2F{names['alice']}", b"", headers, "list v2"),
                Hostile("GET", "/settings", b"", headers, "settings"),
                Hostile("POST", "/settings", b'{"mine": "owned"}', headers, "set"),
                Hostile("POST", "/users", json.dumps({"username": dice.choice(users)}).encode(), headers, "new user"),
            ]
        )
