"""Calling a node's function: once per item of its lists, on the right thread, in the right context.

Sync functions run on the node worker, coroutine functions as tasks of the event loop, so that several of them wait at once.
"""

import asyncio
import collections
import contextlib
import contextvars
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from comfy_execution.executor.hop import call_on_worker, step_within, to_loop
from comfy_execution.executor.inference_scope import inference_scope
from comfy_execution.executor.isolation import is_ctrl_c
from comfy_execution.executor.results import printable, type_name
from comfy_execution.executor.threads import NodeWorker
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.nodes_graph.schema_class import is_schema_class
from comfy_execution.utils import CurrentNodeContext

BlockCallback = Callable[[ExecutionBlocker], ExecutionBlocker]


class CallSite:
    """Where calls of the running prompt happen: its worker thread, and the tasks that belong to it.

    Tasks end on the loop while the prompt may be running on the worker, so their news wait in a queue until the prompt asks.
    """

    def __init__(self, worker: NodeWorker, task: asyncio.Task | None = None) -> None:
        """*task* runs the prompt."""
        self.worker = worker
        self.task = task
        self.tasks: set[asyncio.Task] = set()
        self._finished: collections.deque[Callable[[], None]] = collections.deque()
        self._wake = asyncio.Event()

    def start(self, coroutine: Any, context: contextvars.Context) -> asyncio.Task:
        """Start a task on the running loop that ends with the prompt at the latest."""
        task = asyncio.get_running_loop().create_task(coroutine, context=context)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def when_done(self, tasks: list[asyncio.Task], then: Callable[[], None]) -> None:
        """Have ``release_finished`` call *then* once all *tasks* ended, however they ended. On the loop only."""
        waiting = {task for task in tasks if not task.done()}

        def one_done(task: asyncio.Task) -> None:
            waiting.discard(task)
            if not waiting:
                self._finished.append(then)
                self._wake.set()

        for task in list(waiting):
            task.add_done_callback(one_done)

    def release_finished(self) -> None:
        """Call what ``when_done`` was given for the tasks that ended since. By whoever runs the prompt, on its thread."""
        while self._finished:
            self._finished.popleft()()

    async def wait_finished(self, timeout_s: float) -> None:
        """Wait until there is something to release, or for *timeout_s*. On the loop only."""
        if not self._finished:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), timeout_s)

    async def cancel_tasks(self, timeout_s: float) -> int:
        """Cancel what still runs and wait for it; returns how many tasks would not end in time."""
        tasks = set(self.tasks)
        for task in tasks:
            task.cancel()
        if not tasks:
            return 0
        _, unfinished = await asyncio.wait(tasks, timeout=timeout_s)
        return len(unfinished)


# Outside a running prompt (validation on the server's loop, tests) functions are called where the caller is.
current_call_site: contextvars.ContextVar[CallSite | None] = contextvars.ContextVar("call_site", default=None)


async def call_sync(class_def: type, function: Callable[[], Any]) -> Any:
    """``function()`` as code of *class_def*: on the prompt's worker thread and inside the class's inference scope."""

    def call() -> Any:
        with inference_scope(class_def):
            return function()

    site = current_call_site.get()
    return call() if site is None else await call_on_worker(site.worker, call)


class NodeExit(RuntimeError):
    """An async call raised *error*, a ``KeyboardInterrupt`` or ``SystemExit``, which asyncio would let end the whole event loop."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"{type_name(type(error))}: {printable(error)}")
        self.error = error


def task_result(result: Any) -> Any:
    """What a finished call gave; raises what it raised. Anything but a task is a result already."""
    if not isinstance(result, asyncio.Task):
        return result
    if result.cancelled():
        raise RuntimeError("an async call of this node was cancelled before it finished")
    ended = result.exception()
    if isinstance(ended, NodeExit):
        raise ended.error
    return result.result()


def unfinished_calls(results: list) -> list[asyncio.Task]:
    """Those results that are tasks and still run."""
    return [result for result in results if isinstance(result, asyncio.Task) and not result.done()]


async def resolve_map_node_over_list_results(results: list) -> list:
    """Wait for every call, then return their results in order; raises the first error in order."""
    unfinished = unfinished_calls(results)
    if unfinished:
        await asyncio.wait(unfinished)
    return [task_result(result) for result in results]


def _argument_sets(input_data_all: Mapping[str, Any], input_is_list: bool) -> list[tuple[dict[str, Any], int | None]]:
    """The arguments and list index of each call: as many as the longest list, shorter lists repeat their last item."""
    if input_is_list:
        return [(dict(input_data_all), 0)]
    count = max((len(values) for values in input_data_all.values()), default=0)
    if count == 0:
        return [({}, None)]
    for name, values in input_data_all.items():
        if len(values) == 0:
            raise IndexError(f"input {name!r} is an empty list beside inputs with up to {count} items")
    if count == 1:
        return [({name: values[0] for name, values in input_data_all.items()}, 0)]
    return [({name: values[min(index, len(values) - 1)] for name, values in input_data_all.items()}, index) for index in range(count)]


def _blocker_in(arguments: Mapping[str, Any], input_is_list: bool) -> ExecutionBlocker | None:
    for value in arguments.values():
        if isinstance(value, ExecutionBlocker):
            return value
        if input_is_list and isinstance(value, (list, tuple)):
            for item in value:
                if isinstance(item, ExecutionBlocker):
                    return item
    return None


class MappedCall:
    """One node's function over its lists. Made and used once, by one coroutine.

    *before_call* is a cancellation point: it raises when the user asked to stop.
    """

    def __init__(
        self,
        before_call: Callable[[], None],
        prompt_id: str,
        unique_id: str,
        obj: Any,
        function_name: str,
        *,
        allow_interrupt: bool = False,
        execution_block_cb: BlockCallback | None = None,
        pre_execute_cb: Callable[[int], None] | None = None,
        v3_data: Mapping[str, Any] | None = None,
    ) -> None:
        self._before_call = before_call
        self._prompt_id = prompt_id
        self._unique_id = unique_id
        class_def: Any = obj if inspect.isclass(obj) else type(obj)
        self._class_def = class_def
        self._allow_interrupt = allow_interrupt
        self._block = execution_block_cb or (lambda blocker: blocker)
        self._pre_execute = pre_execute_cb
        self._nest: Callable[[dict], dict] | None = None
        self._input_is_list = bool(getattr(obj, "INPUT_IS_LIST", False))
        if is_schema_class(class_def):
            obj = class_def.PREPARE_CLASS_CLONE((v3_data or {}).get("hidden_inputs", {}))
            self._nest = getattr(obj, "NEST_INPUTS", None)
        self._function = getattr(obj, function_name)

    async def run(self, input_data_all: Mapping[str, Any]) -> list:
        """Call the function for every item. Results are in order; those of async calls may be unfinished tasks."""
        calls = _argument_sets(input_data_all, self._input_is_list)
        if inspect.iscoroutinefunction(self._function):
            return await self._run_async(calls)

        def call_all() -> list:
            return [self._call_one(arguments, index) for arguments, index in calls]

        return await call_sync(self._class_def, call_all)

    def _admit(self, arguments: dict[str, Any]) -> ExecutionBlocker | None:
        """Check for an interrupt, then for a blocked input: what stands for the call then, else None."""
        if self._allow_interrupt:
            self._before_call()
        blocker = _blocker_in(arguments, self._input_is_list)
        return None if blocker is None else self._block(blocker)

    def _arguments(self, arguments: dict[str, Any], index: int | None) -> dict[str, Any]:
        if self._pre_execute is not None and index is not None:
            self._pre_execute(index)
        return arguments if self._nest is None else self._nest(arguments)

    def _call_one(self, arguments: dict[str, Any], index: int | None) -> Any:
        blocked = self._admit(arguments)
        if blocked is not None:
            return blocked

        def call() -> Any:
            prepared = self._arguments(arguments, index)
            with CurrentNodeContext(self._prompt_id, self._unique_id, index):
                return self._function(**prepared)

        # A context of its own: what one call leaves in context variables is not there for the next.
        return contextvars.copy_context().run(call)

    async def _run_async(self, calls: list[tuple[dict[str, Any], int | None]]) -> list:
        site = current_call_site.get()
        if site is None:
            site = CallSite(NodeWorker())
        await to_loop(site.worker)
        results: list = []
        try:
            for arguments, index in calls:
                blocked = self._admit(arguments)
                results.append(await self._start(site, arguments, index) if blocked is None else blocked)
        except BaseException:
            for task in results:
                if isinstance(task, asyncio.Task):
                    task.cancel()
            raise
        return results

    async def _start(self, site: CallSite, arguments: dict[str, Any], index: int | None) -> Any:
        context = contextvars.copy_context()
        prepared = context.run(self._arguments, arguments, index)

        async def call() -> Any:
            with CurrentNodeContext(self._prompt_id, self._unique_id, index):
                try:
                    return await step_within(lambda: inference_scope(self._class_def), self._function(**prepared))
                except (KeyboardInterrupt, SystemExit) as error:
                    if is_ctrl_c(error):
                        raise
                    raise NodeExit(error) from error

        task = site.start(call(), context)
        # Let the call run to its first wait: many finish without any.
        await asyncio.sleep(0)
        return task_result(task) if task.done() else task
