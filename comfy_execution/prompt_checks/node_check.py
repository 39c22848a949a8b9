"""Checks of one node of a prompt against what its class declares."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfy_execution.nodes_graph.declared_inputs import DeclaredInputs, get_input_info
from comfy_execution.nodes_graph.schema_class import is_schema_class
from comfy_execution.prompt_checks.foreign_errors import is_for_the_caller
from comfy_execution.prompt_checks.literals import Problem, check_literal, conversion_error, needs_link, problem, required_missing
from comfy_execution.prompt_checks.shown_values import MOST_OF_A_REASON, brief, echo
from comfy_execution.prompt_checks.validator_call import ValidatorArguments, call_validator, validator_arguments
from comfy_execution.validation import validate_node_input

log = logging.getLogger(__name__)


class NodeFault(Exception):
    """The node is malformed, so that its inputs cannot be checked one by one."""


@dataclass(frozen=True, slots=True)
class LinkedInput:
    """An input that takes another node's output, with the declared (type, options)."""

    name: str
    config: tuple[Any, Any]
    parent_id: str


@dataclass(slots=True)
class NodeCheck:
    """What is known of one node: its errors, what it links to, and, once all of that is checked, whether the node is good."""

    errors: list[Problem] = field(default_factory=list)
    links: list[LinkedInput] = field(default_factory=list)
    linked_types: dict[str, Any] = field(default_factory=dict)
    is_faulty: bool = False
    is_on_cycle: bool = False
    valid: bool = True


class NodeChecker:
    """Checks the nodes of one prompt, converting their literals in place. Each class is asked for its inputs once."""

    def __init__(self, prompt_id: str, prompt: Mapping[str, Any], classes: Mapping[str, Any]) -> None:
        self._prompt_id = prompt_id
        self._prompt = prompt
        self._classes = classes
        self._declared = DeclaredInputs()
        self._arguments: dict[Any, ValidatorArguments] = {}

    def check_inputs(self, node_id: str, consumer: tuple[str, LinkedInput] | None) -> NodeCheck:
        """All that does not depend on the nodes above being good. *consumer*: the node and input through which the node was reached."""
        check = NodeCheck()
        try:
            self._check_inputs(node_id, check)
        except NodeFault as fault:
            self._record_fault(check, fault, consumer)
        except BaseException as error:
            if is_for_the_caller(error):
                raise
            log.exception("Node %s (%s) could not be validated", node_id, self._prompt[node_id]["class_type"])
            self._record_fault(check, error, consumer)
        return check

    async def ask_validator(self, node_id: str, check: NodeCheck) -> None:
        """Add what the class's own validator finds to *check*."""
        if check.is_faulty:
            return
        class_def = self.class_of(node_id)
        arguments = self._arguments[class_def]
        if not arguments.is_called:
            return
        inputs = self._prompt[node_id]["inputs"]
        try:
            declared = self._declared.of_node(class_def, inputs)
            check.errors += await call_validator(class_def, arguments, self._prompt_id, node_id, inputs, declared, check.linked_types)
        except BaseException as error:
            if is_for_the_caller(error):
                raise
            log.exception("The validator of node %s (%s) raised", node_id, self._prompt[node_id]["class_type"])
            check.errors.append(_exception(error, None, None))

    def class_of(self, node_id: str) -> Any:
        """The class of a node of the prompt."""
        return self._classes[self._prompt[node_id]["class_type"]]

    def _record_fault(self, check: NodeCheck, error: BaseException, consumer: tuple[str, LinkedInput] | None) -> None:
        linked_node = None if consumer is None else self._prompt[consumer[0]]["inputs"][consumer[1].name]
        check.errors.append(_exception(error, None if consumer is None else consumer[1], linked_node))
        check.links.clear()
        check.is_faulty = True

    def _check_inputs(self, node_id: str, check: NodeCheck) -> None:
        inputs = self._prompt[node_id].get("inputs")
        if not isinstance(inputs, dict):
            raise NodeFault(f"node {brief(node_id)} has no object 'inputs'")
        class_def = self.class_of(node_id)
        declared = self._declared.of_node(class_def, inputs)
        if class_def not in self._arguments:
            self._arguments[class_def] = validator_arguments(class_def)
        arguments = self._arguments[class_def]
        for section in ("required", "optional"):
            for name in declared.get(section) or {}:
                kind, _, options = get_input_info(class_def, name, {section: declared[section]})
                config = (kind, options)
                if name not in inputs:
                    if section == "required":
                        check.errors.append(required_missing(name, is_schema_class(class_def)))
                elif isinstance(inputs[name], list):
                    self._check_link(name, config, inputs[name], arguments.takes("input_types"), check)
                else:
                    error = _check_constant(name, config, inputs, section == "required", arguments)
                    if error is not None:
                        check.errors.append(error)

    def _check_link(self, name: str, config: tuple[Any, Any], link: list[Any], types_are_taken: bool, check: NodeCheck) -> None:
        if len(link) != 2 or not isinstance(link[0], str) or not isinstance(link[1], int) or isinstance(link[1], bool):
            check.errors.append(
                problem(
                    "bad_linked_input",
                    "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                    name,
                    {"input_name": name, "input_config": config, "received_value": echo(link)},
                )
            )
            return
        parent_id, index = link
        if parent_id not in self._prompt:
            raise NodeFault(f"input {name!r} is linked to node {brief(repr(parent_id))}, which is not in the prompt")
        received = self._output_type(name, parent_id, index)
        check.linked_types[name] = received
        if not types_are_taken and not validate_node_input(received, config[0]):
            check.errors.append(
                problem(
                    "return_type_mismatch",
                    "Return type mismatch between linked nodes",
                    f"{name}, received_type({received}) mismatch input_type({config[0]})",
                    {"input_name": name, "input_config": config, "received_type": received, "linked_node": link},
                )
            )
            return
        check.links.append(LinkedInput(name, config, parent_id))

    def _output_type(self, name: str, parent_id: str, index: int) -> Any:
        """The declared type of an output. Asks the tuple itself: packs bring some that have a type for any index."""
        types = self.class_of(parent_id).RETURN_TYPES
        try:
            if index >= 0:
                return types[index]
        except IndexError:
            pass
        raise NodeFault(f"input {name!r} is linked to output {_short(index)} of node {brief(parent_id)}, which has {len(types)} outputs")


def _check_constant(
    name: str, config: tuple[Any, Any], inputs: dict[str, Any], is_required: bool, arguments: ValidatorArguments
) -> Problem | None:
    """Convert a literal in place; what is wrong with it. Inputs that the class's validator takes are converted only."""
    error = conversion_error(name, config, inputs)
    if error is not None or arguments.takes(name) or arguments.takes_any:
        return error
    error = check_literal(name, config, inputs[name])
    return needs_link(name, config, inputs[name]) if error is None and is_required else error


def _short(number: int) -> str:
    return str(number) if number.bit_length() <= 256 else f"with a number of {number.bit_length()} bits"


def _exception(error: BaseException, consumer: LinkedInput | None, linked_node: Any) -> Problem:
    """*error* as upstream's clients know it: of the node itself, or of a node reached through *consumer*. Tracebacks go to the log."""
    kind, reason = type(error), brief(str(error), MOST_OF_A_REASON)
    name = "comfy.ValidationError" if isinstance(error, NodeFault) else f"{kind.__module__}.{kind.__qualname__}"
    info: dict[str, Any] = {"exception_type": name, "traceback": []}
    if consumer is None:
        return problem("exception_during_validation", "Exception when validating node", reason, info)
    info |= {"input_name": consumer.name, "input_config": consumer.config, "exception_message": reason, "linked_node": echo(linked_node)}
    return problem("exception_during_inner_validation", "Exception when validating inner node", reason, info)
