"""``POST /free``: what results hold is let go at once, on a server that does nothing else meanwhile."""

import time

PACK = '''
import weakref

LIVING = weakref.WeakSet()


class Thing:
    """Lives as long as somebody refers to it."""


class MakeThing:
    CATEGORY = "tests"
    RETURN_TYPES = ("THING",)
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        thing = Thing()
        LIVING.add(thing)
        return (thing,)


class KeepThing:
    CATEGORY = "tests"
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "keep"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"thing": ("THING",)}}

    def keep(self, thing):
        return ()


class CountThings:
    CATEGORY = "tests"
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "count"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def count(self):
        return {"ui": {"living": [len(LIVING)]}}


NODE_CLASS_MAPPINGS = {"MakeThing": MakeThing, "KeepThing": KeepThing, "CountThings": CountThings}
'''


def test_the_first_results_of_a_server_die_with_free(start_server, tmp_path):
    """The caches that the start made go like any others, also those that refer to themselves."""
    packs = tmp_path / "server" / "custom_nodes"
    packs.mkdir(parents=True)
    (packs / "things.py").write_text(PACK)
    server = start_server()
    made = server.run({"1": {"class_type": "MakeThing", "inputs": {}}, "2": {"class_type": "KeepThing", "inputs": {"thing": ["1", 0]}}})
    assert made.history["status"]["status_str"] == "success"
    assert server.get("/caches")["results"]["local"]["entries"], "the result is kept"
    assert server.post("/free", {"unload_models": True, "free_memory": True})[0] == 200
    ends_s = time.monotonic() + 30
    while server.get("/caches")["results"]["local"]["entries"]:
        assert time.monotonic() < ends_s, "results are forgotten"
        time.sleep(0.02)
    assert counted(server) == 0


def counted(server):
    """How many things live."""
    run = server.run({"1": {"class_type": "CountThings", "inputs": {}}})
    return run.history["outputs"]["1"]["living"][0]
