"""Loops: the nodes between Start Loop and End Loop run once per iteration.

The end of a loop does not wait for the body: it expands to a node that knows how many iterations there are, which expands to a copy of the
body for each. What an iteration takes from the start comes from a ``LoopIteration``; each waits for what the one before it made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from comfy.lazy_import import lazy_module
from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder, Node, is_link
from comfy_execution.nodes_graph.loops import LOOP_KEY, Loop, boundary_of, find_loops, is_value
from comfy_execution.nodes_graph.registered_classes import node_class
from comfy_extras.list_values import items_of
from comfy_extras.node_extension import extension_of

server = lazy_module("server")

CATEGORY = "utilities/looping"
NEVER_AGAIN = float("nan")  # as a fingerprint: unequal to every other


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list | tuple) and value else value


def _taken(output: io.MatchType.Template) -> list[Any]:
    """The inputs by which a loop's end takes something from the body, which does not run for them: they are links to its originals."""
    carried = io.MatchType.Template("carried_value")
    must_run = io.AnyType.Input("termination", raw_link=True, tooltip="Something that runs in every iteration and is not returned.")
    return [
        io.MatchType.Input("output_value", output, optional=True, raw_link=True, tooltip="What the loop returns."),
        io.MatchType.Input(
            "next_iteration_value", carried, optional=True, raw_link=True, tooltip="The next iteration's current_iteration_value."
        ),
        io.Autogrow.Input(
            "terminations",
            template=io.Autogrow.TemplatePrefix(must_run, prefix="termination", min=0, max=50),
            optional=True,
            tooltip="What must run in every iteration, such as saving a picture.",
        ),
    ]


class StartLoop(io.ComfyNode):
    """Where a loop begins: which iterations there are, and what each gets."""

    LOOP_BOUNDARY = "start"

    @classmethod
    def define_schema(cls) -> io.Schema:
        item, carried = io.MatchType.Template("list_item"), io.MatchType.Template("carried_value")
        counted = [io.Int.Input("num_iterations", default=4, min=0, tooltip="How often the loop's nodes run.")]
        stepped = [
            io.Int.Input("start_iteration_index", default=0, tooltip="The first index."),
            io.Int.Input("max_iteration", default=4, max=0xFFFFFFFFFFFFFFFF, tooltip="Where indices end; itself it is none."),
            io.Int.Input("step", default=1, min=1, tooltip="How far indices are apart."),
        ]
        listed = [io.MatchType.Input("list", item, tooltip="The loop's nodes run once for each of its items.")]
        modes: dict[str, list[Any]] = {"simple": counted, "For": stepped, "List": listed}
        return io.Schema(
            node_id="StartLoop",
            display_name="Start Loop",
            category=CATEGORY,
            is_input_list=True,
            inputs=[
                io.DynamicCombo.Input(
                    "mode", options=[io.DynamicCombo.Option(name, inputs) for name, inputs in modes.items()], tooltip="What is counted."
                ),
                io.Boolean.Input(
                    "cache_iterations",
                    default=False,
                    advanced=True,
                    tooltip="Whether iterations in which nothing changed are not run again.",
                ),
                io.Int.Input(
                    "parent_iteration", optional=True, force_input=True, tooltip="The iteration_index of the loop in which this one lies."
                ),
                io.MatchType.Input("initial_iteration_value", carried, optional=True, tooltip="The first current_iteration_value."),
            ],
            outputs=[
                io.Int.Output("iteration_index"),
                io.Boolean.Output("is_first"),
                io.Boolean.Output("is_last"),
                io.MatchType.Output(item, id="list_item", tooltip="The item of this iteration, if a list is gone through."),
                io.MatchType.Output(
                    carried, id="current_iteration_value", tooltip="The initial value, then what End Loop got in the iteration before."
                ),
            ],
        )

    @classmethod
    def execute(cls, **kwargs: Any) -> io.NodeOutput:
        """Raises ``ValueError``: in a loop that has an end it is the copies of the body that run, without this node."""
        raise ValueError("values of this Start Loop are used outside of a loop; connect what is made of them to an End Loop")

    @classmethod
    def fingerprint_inputs(cls, cache_iterations: Any = False, **kwargs: Any) -> Any:
        """A loop whose iterations are not to be reused never equals another."""
        return None if _first(cache_iterations) is True else NEVER_AGAIN


class EndLoop(io.ComfyNode):
    """Where a loop ends: what goes on to the next iteration, and what is returned."""

    LOOP_BOUNDARY = "end"

    @classmethod
    def define_schema(cls) -> io.Schema:
        output = io.MatchType.Template("output_value")
        taken = _taken(output)
        return io.Schema(
            node_id="EndLoop",
            display_name="End Loop",
            category=CATEGORY,
            is_input_list=True,
            inputs=[
                *taken[:2],
                io.Boolean.Input("accumulate", default=False, tooltip="Whether all iterations' outputs are returned, or the last one's."),
                taken[2],
            ],
            outputs=[io.MatchType.Output(output, id="outputs", is_output_list=True)],
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, accumulate: Any = False, **kwargs: Any) -> io.NodeOutput:
        """The expansion to a node that waits for what Start Loop is given, and runs the iterations."""
        dynprompt, own_id = cls.hidden.dynprompt, cls.hidden.unique_id
        loop = loop_of(dynprompt, own_id)
        taken = {name: value for name, value in dynprompt.get_node(own_id)["inputs"].items() if is_value(name)}
        graph = GraphBuilder()
        # With what the end takes: what is kept of this node depends on the body as well.
        run = graph.node("LoopRun", "run", end_id=own_id, accumulate=bool(_first(accumulate)), **taken)
        for name, value in dynprompt.get_node(loop.start)["inputs"].items():
            run.set_input(name.rpartition(".")[2], value)
        run.set_override_display_id(loop.start)
        return io.NodeOutput(run.out(0), expand=graph.finalize())


class LoopRun(io.ComfyNode):
    """Made by End Loop with Start Loop's inputs: expands to the iterations."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoopRun",
            category=CATEGORY,
            is_input_list=True,
            inputs=[
                io.String.Input("end_id"),
                io.Boolean.Input("accumulate"),
                io.String.Input("mode"),
                *_taken(io.MatchType.Template("output_value")),
            ],
            outputs=[io.AnyType.Output(is_output_list=True)],
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
            is_dev_only=True,
            enable_expand=True,
            accept_all_inputs=True,
        )

    @classmethod
    def execute(cls, end_id: list[str], accumulate: list[bool], mode: list[str], **given: Any) -> io.NodeOutput:
        """The expansion; the outputs are joined in the order of iterations. Raises ``ValueError`` for a step of 0."""
        dynprompt, own_id = cls.hidden.dynprompt, cls.hidden.unique_id
        links = dynprompt.get_node(own_id)["inputs"]
        if mode[0] == "List":
            indices = range(len(items_of(dynprompt, links.get("list"), given["list"])))
        elif mode[0] == "For":
            step = given.get("step", [1])[0]
            if not step:
                raise ValueError("the step of Start Loop is 0, so that the loop would not end; choose 1 or more")
            indices = range(given.get("start_iteration_index", [0])[0], given.get("max_iteration", [4])[0], step)
        else:
            indices = range(given.get("num_iterations", [4])[0])
        unrolled = _Unrolled(dynprompt, loop_of(dynprompt, end_id[0]), links, indices, accumulate[0])
        return io.NodeOutput(unrolled.result.out(0), expand=unrolled.nodes())


class _Unrolled:
    """The copies of a loop's body, one set per iteration. *given* are Start Loop's inputs by bare name, constants and links."""

    def __init__(self, dynprompt: Any, loop: Loop, given: Mapping[str, Any], indices: range, accumulate: bool) -> None:
        self._dynprompt, self._loop, self._given, self._indices = dynprompt, loop, given, indices
        self._graph = GraphBuilder()
        self._told: dict[str, dict[str, Any]] = {}  # what nodes are told beside their inputs, which decide what is cached
        ends = dynprompt.get_node(loop.end)["inputs"]
        output, following = ends.get("output_value"), ends.get("next_iteration_value")
        needed = [value for name, value in ends.items() if is_value(name) and is_link(value)]
        carried: Any = given.get("initial_iteration_value")
        before: list[Any] = []
        returned: list[Any] = []
        for place in range(len(indices)):
            copied = self._iteration(place, carried, before)
            before = [copied(link) for link in needed]
            carried = copied(following) if is_link(following) else carried
            if is_link(output):
                returned = [*(returned if accumulate else ()), copied(output)]
        last = {f"after{number}": link for number, link in enumerate(before)}
        self.result = self._graph.node("LoopResult", "result", **{f"output{number}": link for number, link in enumerate(returned)}, **last)

    def nodes(self) -> dict[str, dict[str, Any]]:
        """The graph, with how many iterations there are, and which loops lie in the copies."""
        graph = self._graph.finalize()
        for node_id, told in self._told.items():
            graph[node_id][LOOP_KEY] = told
        return graph

    def _iteration(self, place: int, carried: Any, before: list[Any]) -> Callable[[Any], Any]:
        """Add one iteration; returns what turns links in the loop into links in this iteration."""
        loop, given = self._loop, self._given
        start = self._graph.node(
            "LoopIteration",
            f"{place}.start",
            iteration_index=self._indices[place],
            is_first=place == 0,
            is_last=place == len(self._indices) - 1,
            reuse=given.get("cache_iterations", False),
            place=place,
            start_id=self._dynprompt.get_display_node_id(loop.start),
            **{f"after{number}": link for number, link in enumerate(before)},
        )
        start.set_input("list", given.get("list"))
        start.set_input("carried", carried)
        start.set_override_display_id(loop.start)
        self._told[start.id] = {"count": len(self._indices)}
        copies: dict[str, Node] = {loop.start: start}
        originals = {node_id: self._dynprompt.get_node(node_id) for node_id in sorted(loop.body)}
        for node_id, original in originals.items():
            copies[node_id] = self._graph.node(original["class_type"], f"{place}.{node_id}")
            copies[node_id].set_override_display_id(node_id)

        def copied(value: Any) -> Any:
            return copies[value[0]].out(value[1]) if is_link(value) and value[0] in copies else value

        for node_id, original in originals.items():
            for name, value in original["inputs"].items():
                copies[node_id].set_input(name, copied(value))
            if boundary_of(node_class(original["class_type"])) == "end":
                inner = loop_of(self._dynprompt, node_id)
                body = [copies[one].id for one in inner.body]
                self._told[copies[node_id].id] = {"start": copies[inner.start].id, "body": body}
        return copied


class LoopIteration(io.ComfyNode):
    """Stands for Start Loop in one iteration."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoopIteration",
            category=CATEGORY,
            is_input_list=True,
            inputs=[
                io.Int.Input("iteration_index"),
                io.Boolean.Input("is_first"),
                io.Boolean.Input("is_last"),
                io.Boolean.Input("reuse"),
                io.Int.Input("place"),
                io.String.Input("start_id"),
                io.AnyType.Input("list", optional=True),
                io.AnyType.Input("carried", optional=True),
            ],
            outputs=[
                io.Int.Output(),
                io.Boolean.Output(),
                io.Boolean.Output(),
                io.AnyType.Output(),
                io.AnyType.Output(is_output_list=True),
            ],
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
            is_dev_only=True,
            accept_all_inputs=True,
        )

    @classmethod
    def execute(cls, iteration_index: Any, is_first: Any, is_last: Any, place: Any, start_id: Any, **given: Any) -> io.NodeOutput:
        """Index, whether it is the first and the last, the list's item or None, the carried value (a list, or None in one)."""
        dynprompt, own_id = cls.hidden.dynprompt, cls.hidden.unique_id
        if (told := getattr(server.PromptServer, "instance", None)) is not None:
            count = dynprompt.get_node(own_id)[LOOP_KEY]["count"]
            told.send_progress_text(f"Iteration {place[0] + 1} / {count}", start_id[0])
        item = None
        if given.get("list") is not None:
            item = items_of(dynprompt, dynprompt.get_node(own_id)["inputs"]["list"], given["list"])[place[0]]
        return io.NodeOutput(iteration_index[0], is_first[0], is_last[0], item, list(given.get("carried") or [None]))

    @classmethod
    def fingerprint_inputs(cls, reuse: Any = False, **kwargs: Any) -> Any:
        """Iterations that are not to be reused never equal others."""
        return None if _first(reuse) is True else NEVER_AGAIN


class LoopResult(io.ComfyNode):
    """Joins what iterations returned, once the last one has run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoopResult",
            category=CATEGORY,
            is_input_list=True,
            inputs=[],
            outputs=[io.AnyType.Output(is_output_list=True)],
            is_dev_only=True,
            accept_all_inputs=True,
        )

    @classmethod
    def execute(cls, **given: Any) -> io.NodeOutput:
        """The values, in order."""
        outputs = [name for name in given if name.startswith("output")]
        ordered = sorted(outputs, key=lambda name: int(name.removeprefix("output")))
        return io.NodeOutput([value for name in ordered for value in given[name]])


def loop_of(dynprompt: Any, end_id: str) -> Loop:
    """The loop that ends at *end_id*, of the prompt or of an iteration. Raises ``ValueError`` where there is none."""
    known = dynprompt.get_node(end_id).get(LOOP_KEY)
    if known is not None:
        return Loop(known["start"], end_id, frozenset(known["body"]))
    nodes = dynprompt.get_original_prompt()
    loops = find_loops(nodes, lambda node_id: boundary_of(node_class(nodes[node_id]["class_type"])))
    for loop in loops.found:
        if loop.end == end_id:
            return loop
    raise ValueError(next((fault.message for fault in loops.faults if end_id in fault.node_ids), f"node {end_id} ends no loop"))


comfy_entrypoint = extension_of(StartLoop, EndLoop, LoopRun, LoopIteration, LoopResult)
