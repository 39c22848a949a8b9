"""A fake server and a bench to run prompts of small node classes on; shared by the executor's tests."""

import asyncio
import sys
import types

import execution
from comfy.interruption import interrupt_flag
from comfy_execution.nodes_graph.registered_classes import class_source


class FakeServer:
    """Notes what would be sent, as ``(event, data, sid)``."""

    def __init__(self):
        self.client_id = None
        self.last_node_id = None
        self.last_prompt_id = None
        self.sockets_metadata = {}
        self.sent = []

    def send_sync(self, event, data, sid=None):
        self.sent.append((event, data, sid))

    def queue_updated(self):
        pass


class Bench:
    """One executor over a table of node classes."""

    def __init__(self, classes, **arguments):
        self.server = FakeServer()
        self.classes = classes
        self.executor = execution.PromptExecutor(self.server, **arguments)
        self.runs = 0

    def run(self, prompt, outputs=None, client_id="owner", **extra_data):
        """Run a prompt for *outputs* (default: every output node in it); returns the messages sent, in order."""
        self.runs += 1
        self.server.sent = []
        if outputs is None:
            outputs = [key for key, node in prompt.items() if getattr(self.classes[node["class_type"]], "OUTPUT_NODE", False)]
        if client_id is not None:
            extra_data["client_id"] = client_id
        self.executor.execute(prompt, f"prompt-{self.runs}", extra_data, outputs)
        return self.server.sent

    def data(self, event):
        """What was sent with *event* in the last run."""
        return [data for name, data, _ in self.server.sent if name == event]

    def executed(self):
        """The nodes that got ``executing`` in the last run, in order."""
        return [data["node"] for data in self.data("executing")]

    def error(self):
        """The one ``execution_error`` of the last run."""
        (data,) = self.data("execution_error")
        return data

    @property
    def outputs(self):
        """The history's outputs of the last run."""
        return self.executor.history_result["outputs"]


def install_nodes(monkeypatch, classes):
    """Make *classes* the node table for this test."""
    module = types.ModuleType("nodes")
    module.NODE_CLASS_MAPPINGS = dict(classes)
    module.before_node_execution = interrupt_flag.raise_if_set
    module.interrupt_processing = interrupt_flag.set
    monkeypatch.setitem(sys.modules, "nodes", module)
    monkeypatch.setattr(class_source, "_classes", lambda: module.NODE_CLASS_MAPPINGS)
    return module


def node(class_type, **inputs):
    """A node of a prompt; a tuple ``(node id, socket)`` is a link."""
    return {"class_type": class_type, "inputs": {name: list(v) if isinstance(v, tuple) else v for name, v in inputs.items()}}


def make_node(function, inputs=(), returns=("*",), is_output=False, **attributes):
    """A V1 class whose function is *function(self, …)*; *inputs* are required names or ``{name: declaration}``."""
    declared = inputs if isinstance(inputs, dict) else {name: ("*", {}) for name in inputs}
    sections = attributes.pop("sections", {})
    body = {
        "INPUT_TYPES": classmethod(lambda cls: {"required": declared, **sections}),
        "RETURN_TYPES": tuple(returns),
        "FUNCTION": "go",
        "CATEGORY": "test",
        "OUTPUT_NODE": is_output,
        "go": function,
        **attributes,
    }
    return type("TestNode", (), body)


class Log(list):
    """What nodes were called with, in order."""

    def sink(self, **attributes):
        """A class of output nodes that note their input ``value`` here."""

        def go(node_self, value=None, **others):
            self.append(value)
            return {"ui": {"value": [repr(value)]}}

        return make_node(go, ["value"], returns=(), is_output=True, **attributes)


def benches(monkeypatch, log):
    """Fixture body: a function that makes a bench from named classes, besides the usual ones; benches are closed afterwards."""
    opened = []

    def make(cache_type=execution.CacheType.CLASSIC, cache_args=None, **classes):
        table = {
            "Value": make_node(lambda self, x: (x,), ["x"]),
            "Many": make_node(lambda self, x: (x,), ["x"], OUTPUT_IS_LIST=(True,)),
            "Pass": make_node(lambda self, value: (value,), ["value"]),
            "Add": make_node(lambda self, a, b: (a + b,), ["a", "b"]),
            "Sink": log.sink(),
            **classes,
        }
        install_nodes(monkeypatch, table)
        opened.append(Bench(table, cache_type=cache_type, cache_args=cache_args))
        return opened[-1]

    interrupt_flag.set(False)
    yield make
    interrupt_flag.set(False)
    for bench in opened:
        bench.executor.close()


def chain(length, value=1):
    prompt = {"0": node("Value", x=value)}
    for index in range(1, length):
        prompt[str(index)] = node("Pass", value=(str(index - 1), 0))
    return {**prompt, "end": node("Sink", value=(str(length - 1), 0))}


def meeting(parties):
    """A class of async nodes that all wait until *parties* of them run at once."""
    state = {"here": 0, "all": None}

    async def go(self, value):
        state["all"] = state["all"] or asyncio.Event()
        state["here"] += 1
        if state["here"] == parties:
            state["all"].set()
        await asyncio.wait_for(state["all"].wait(), 10)
        return (value,)

    return make_node(go, ["value"])
