"""Checks of prompts under fire: prompts that cost much to check, and node classes that misbehave while they are asked."""

import json
import pathlib
import shutil

import pytest
from hostile_requests import Hostile, send
from test_attack_http import fire, repeat

MIB = 1 << 20
RSS_GROWTH_BYTES = 1024 * MIB
PACK = pathlib.Path(__file__).with_name("hostile_checks.py")
MOST_ANSWERED = 8 * MIB


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def save(images, **more):
    return node("SaveImage", images=images, filename_prefix="x", **more)


def costly_prompts(count):
    """Prompts of some *count* nodes, each of a kind that once took time or space with the square of it."""
    picture = node("EmptyImage", width=8, height=8, batch_size=1, color=0)
    ring = {str(index): node("ImageInvert", image=[str((index + 1) % count), 0]) for index in range(count)}
    yield "ring", ring | {"s": save(["0", 0])}
    blend = {"blend_factor": 0.5, "blend_mode": "normal"}
    back = {str(index): node("ImageBlend", image1=[str(index + 1), 0], image2=["0", 0], **blend) for index in range(count)}
    yield "links back", back | {str(count): picture, "s": save(["0", 0])}
    yield "bad links", {str(index): save([f"lost{index}", 0]) for index in range(count)}
    yield "failing outputs", {str(index): save([str(index + 1), 0]) for index in range(count)}
    yield "undeclared links", {str(index): save(["e", 0], more=["gone", 0]) for index in range(count)} | {"e": picture}
    yield "long list", {"1": picture | {"inputs": {"width": [1] * (count * 10)}}, "s": save(["1", 0])}
    yield "long text", {"1": picture | {"inputs": {"width": "9" * (count * 1000), "height": "x" * (count * 1000)}}, "s": save(["1", 0])}
    yield "long ids", {"i" * (count * 100): node("ImageInvert", image=["i" * (count * 100), 0]), "s": save(["i" * (count * 100), 0])}


def requests(count):
    return [Hostile("POST", "/prompt", json.dumps({"prompt": prompt}).encode(), {}, why) for why, prompt in costly_prompts(count)]


def test_a_few_costly_prompts(attacked):
    server = attacked("checks sample")
    with server.watch() as result:
        for request in requests(2000):
            status, body = send(server.server.port, request)
            assert (status, len(body) < MOST_ANSWERED) == (400, True), request.why
            result.tries += 1
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)
    assert len(server.server.log()) < MIB


@pytest.mark.attack
@pytest.mark.timeout(300)
def test_costly_prompts(attacked, dice, seconds):
    server = attacked("checks")
    with server.watch() as result:
        repeat(seconds, lambda left_s: fire(server.server.port, result, requests(dice.randint(1000, 12_000)), left_s))
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)


def test_classes_that_misbehave_while_they_are_asked(tmp_path, attacked):
    packs = tmp_path / "hostile checks" / "custom_nodes"
    packs.mkdir(parents=True)
    shutil.copy(PACK, packs)
    server = attacked("hostile checks")
    live = server.server
    with server.watch() as result:
        described = live.get("/object_info")
        names = sorted(name for name in described if name.startswith("Validate_"))
        assert len(names) == 6 and "SaveImage" in described and not any(name.startswith("Declare_") for name in described)
        for name in [*names, "Declare_leave", "Declare_interrupt", "Declare_group"]:
            status, answer = live.post("/prompt", {"prompt": {"1": node(name, x=1)}})
            assert status == (200 if "block" in name else 400), (name, answer)
            result.tries += 1
    server.check(result, rss_growth_bytes=RSS_GROWTH_BYTES)
