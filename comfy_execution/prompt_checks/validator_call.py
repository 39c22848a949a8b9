"""Calling a node class's own validator, ``VALIDATE_INPUTS``, with the arguments it names."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy_execution.executor.inputs import get_input_data
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.nodes_graph.schema_class import is_schema_class
from comfy_execution.prompt_checks.literals import Problem, problem
from comfy_execution.prompt_checks.shown_values import MOST_OF_A_REASON, brief
from comfy_execution.utils import CurrentNodeContext


@dataclass(frozen=True, slots=True)
class ValidatorArguments:
    """Which arguments a validator takes: *names*, and with *takes_any* (``**kwargs``) all of them."""

    names: frozenset[str] = frozenset()
    takes_any: bool = False

    @property
    def is_called(self) -> bool:
        """Whether there is a validator that could judge anything."""
        return self.takes_any or bool(self.names)

    def takes(self, name: str) -> bool:
        """Whether the validator names that argument."""
        return name in self.names


def validator_arguments(class_def: Any) -> ValidatorArguments:
    """What the validator of *class_def* takes; nothing when there is none."""
    function = getattr(class_def, "VALIDATE_INPUTS", None)
    if function is None:
        return ValidatorArguments()
    spec = inspect.getfullargspec(function)
    return ValidatorArguments(frozenset([*spec.args, *spec.kwonlyargs]), spec.varkw is not None)


async def call_validator(
    class_def: Any,
    arguments: ValidatorArguments,
    prompt_id: str,
    node_id: str,
    inputs: dict[str, Any],
    declared: Mapping[str, Any],
    linked_types: Mapping[str, Any],
) -> list[Problem]:
    """The errors that the class's validator reports, one per argument it was given; links arrive as None. Raises what it raises.

    *declared*: what the class declares for these *inputs*. *linked_types*: received type by linked input, for ``input_types``.
    """
    collected, _, extra = get_input_data(inputs, class_def, node_id, declared=declared)
    given = {name: values for name, values in collected.items() if arguments.takes(name) or arguments.takes_any}
    with CurrentNodeContext(prompt_id, node_id):
        answer = await _call(class_def, given, dict(linked_types) if arguments.takes("input_types") else None, extra)
    if answer is True or isinstance(answer, ExecutionBlocker):
        return []
    reason = "" if answer is False else brief(str(answer), MOST_OF_A_REASON)
    names = list(given) or (["input_types"] if arguments.takes("input_types") else [""])
    return [
        problem(
            "custom_validation_failed", "Custom validation failed for node", " - ".join(filter(None, (name, reason))), {"input_name": name}
        )
        for name in names
    ]


async def _call(class_def: Any, given: Mapping[str, Any], input_types: dict[str, Any] | None, extra: Mapping[str, Any]) -> Any:
    as_lists = bool(getattr(class_def, "INPUT_IS_LIST", False))
    values = {name: list(items) if as_lists else items[0] for name, items in given.items()}
    function = class_def.VALIDATE_INPUTS
    if is_schema_class(class_def):
        values = class_def.NEST_INPUTS(values)
        function = class_def.PREPARE_CLASS_CLONE(extra.get("hidden_inputs", {})).VALIDATE_INPUTS
    if input_types is not None:
        values["input_types"] = [input_types] if as_lists else input_types
    answer = function(**values)
    return await answer if inspect.isawaitable(answer) else answer
