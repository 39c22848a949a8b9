"""Reading ahead in a running server: the pictures and what is read stay the same, and ``/interrupt`` and ``/free`` stop it.

A node that waits keeps the first prompt running until the rest has been read; reads are held and noted by ``held_reads.py``.
"""

import pathlib
import shutil
import time

import pytest
from live_server import Client, LiveServer
from model_workflows import STARTERS, models, node, with_starters, workflow

pytestmark = pytest.mark.timeout(300)
FLAGS = ("--ram-model-cache-mb", "1000", "--cache-none")
WAITS = """
import os
import time

class WaitForFile:
    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "wait", True, "tests"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"gate": ("STRING", {})}}

    def wait(self, gate):
        while not os.path.exists(gate):
            time.sleep(0.01)
        return ()

NODE_CLASS_MAPPINGS = {"WaitForFile": WaitForFile}
"""


def wait_for(condition, timeout_s=60.0):
    """Until *condition()* holds; fails the test when it does not in time."""
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, "waited in vain"
        time.sleep(0.02)


class Queueing:
    """A server whose first prompt waits, and its queue."""

    def __init__(self, base, *flags):
        packs = base / "custom_nodes"
        packs.mkdir(parents=True)
        (packs / "waits.py").write_text(WAITS)
        shutil.copy(pathlib.Path(__file__).parent / "held_reads.py", packs)
        self.switch, self.gate = base / "hold", base / "gate"
        self.server = with_starters(LiveServer(base, *FLAGS, *flags, environment={"HELD_READS": str(self.switch)}))
        self.client = Client(self.server)

    def put(self, prompt):
        """Queue *prompt*; returns its id."""
        status, answer = self.server.post("/prompt", {"prompt": prompt, "client_id": self.client.client_id})
        assert status == 200, answer
        return answer["prompt_id"]

    def occupy(self):
        """Have a prompt run that waits for the gate; returns its id."""
        self.gate.unlink(missing_ok=True)
        prompt_id = self.put({"1": node("WaitForFile", gate=str(self.gate))})
        wait_for(lambda: self.server.get("/queue")["queue_running"])
        return prompt_id

    def ended(self, prompt_id):
        """The history's entry of a prompt, once it has ended."""
        wait_for(lambda: self.server.get(f"/history/{prompt_id}"), 120)
        return self.server.get(f"/history/{prompt_id}")[prompt_id]

    def picture(self, prompt_id):
        """The bytes of a prompt's picture, and its receipts."""
        entry = self.ended(prompt_id)
        assert entry["status"]["status_str"] == "success", entry["status"]
        (file,) = entry["outputs"]["save"]["images"]
        return self.server.get_bytes(f"/view?filename={file['filename']}&type={file['type']}"), entry["models"]

    def read_ahead(self):
        """How many models have been read before their loader asked."""
        return models(self.server)[1]["read_ahead"]

    def begun(self):
        """How many reads of weights were begun while they were held."""
        return (self.switch.parent / "hold.notes").read_text().count("begin")

    def hold_reads(self):
        """Let no read of weights come back from now on."""
        (self.switch.parent / "hold.notes").write_text("")
        self.switch.touch()

    def stop(self):
        """End the server."""
        self.switch.unlink(missing_ok=True)
        self.gate.touch()
        self.client.close()
        self.server.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A server that reads ahead."""
    one = Queueing(tmp_path_factory.mktemp("ahead") / "server")
    yield one
    one.stop()


@pytest.fixture
def one(shared):
    """The same, with nothing in memory."""
    assert shared.server.post("/free", {"unload_models": True, "free_memory": True})[0] == 200
    wait_for(lambda: models(shared.server)[2] == [])
    return shared


@pytest.fixture
def plain(tmp_path):
    """A server that does not read ahead."""
    one = Queueing(tmp_path / "server", "--no-read-ahead")
    yield one
    one.stop()


def queued(one, prompts, is_read_ahead):
    """The pictures of *prompts* that wait until another has ended, (model, tier) of the receipts of each, and how many bytes were read."""
    read_bytes, ahead = models(one.server)[1]["read_bytes"], one.read_ahead()
    waiting = one.occupy()
    ids = [one.put(prompt) for prompt in prompts]
    if is_read_ahead:
        wait_for(lambda: one.read_ahead() == ahead + 6)
    one.gate.touch()
    assert one.ended(waiting)["status"]["status_str"] == "success"
    found = [one.picture(prompt_id) for prompt_id in ids]
    receipts = [[(each["model"], each["tier"]) for each in listed] for _, listed in found]
    return [picture for picture, _ in found], receipts, models(one.server)[1]["read_bytes"] - read_bytes


def test_pictures_and_what_is_read_are_the_same_and_the_reading_was_done_before(one, plain):
    prompts = [workflow(STARTERS[number % 2], number) for number in range(4)]
    pictures, receipts, read_bytes = queued(one, prompts, True)
    without, plain_receipts, plain_bytes = queued(plain, prompts, False)
    assert pictures == without and len(set(pictures)) == len(prompts)
    assert read_bytes == plain_bytes > 0
    assert [{tier for _, tier in listed} for listed in receipts[:2]] == [{"ahead"}, {"ahead"}]
    assert [{tier for _, tier in listed} for listed in plain_receipts[:2]] == [{"disk"}, {"disk"}]
    assert receipts[2:] == plain_receipts[2:]


def test_an_interrupt_stops_it_until_the_next_prompt_which_reads_all_of_it(one):
    ahead = one.read_ahead()
    one.occupy()
    one.hold_reads()
    waiting = one.put(workflow(STARTERS[0], 11))
    wait_for(one.begun)
    begun = one.begun()
    assert one.server.post("/interrupt", {})[0] == 200
    one.switch.unlink()
    time.sleep(1.0)
    assert one.read_ahead() == ahead and one.begun() == begun and models(one.server)[2] == []
    one.gate.touch()
    assert {receipt["tier"] for receipt in one.picture(waiting)[1]} == {"disk"}
    running = one.occupy()
    later = one.put(workflow(STARTERS[1], 12))
    wait_for(lambda: one.read_ahead() == ahead + 3)
    one.gate.touch()
    assert one.ended(running)["status"]["status_str"] == "success"
    assert {receipt["tier"] for receipt in one.picture(later)[1]} == {"ahead"}


def test_freeing_memory_stops_it_and_drops_what_was_read_ahead(one):
    ahead, unused = one.read_ahead(), models(one.server)[1]["ahead_unused"]
    running = one.occupy()
    first = one.put(workflow(STARTERS[0], 21))
    wait_for(lambda: one.read_ahead() == ahead + 3)
    assert one.server.post("/free", {"free_memory": True, "unload_models": True})[0] == 200
    second = one.put(workflow(STARTERS[1], 22))
    time.sleep(1.0)
    assert one.read_ahead() == ahead + 3, "nothing more is read while this prompt runs"
    one.gate.touch()
    assert one.ended(running)["status"]["status_str"] == "success"
    assert {receipt["tier"] for receipt in one.picture(first)[1]} == {"disk"}
    one.picture(second)
    assert models(one.server)[1]["ahead_unused"] == unused + 3
