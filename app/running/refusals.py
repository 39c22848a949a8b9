"""What the log says of refused prompts: the whole text of each kind once a minute, however often clients send such prompts."""

import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from app.files.seldom import Seldom
from comfy_execution.prompt_checks.failures import text_of
from comfy_execution.prompt_checks.shown_values import brief

log = logging.getLogger(__name__)

MAX_NODES = 20
MOST_CHARACTERS = 1000


class RefusalLog:
    """Used from the server's loop. *is_due* tells whether a kind has not been said for a minute, and takes it for said then."""

    def __init__(self, is_due: Callable[[Any], bool] | None = None) -> None:
        self._is_due = is_due or Seldom().is_due
        self._left_out = 0

    def tell(self, error: Mapping[str, Any] | None, node_errors: Any) -> None:
        """Say why a prompt is refused (*error*), or None for one of which only some outputs are left out, and what is wrong with its nodes.

        *node_errors* by node id, as clients get them; what has another shape, as packs may answer, is passed over. Two refusals are of
        one kind when their errors, and the classes and errors of their first nodes, are of the same types.
        """
        wrong = list(islice(_wrong_nodes(node_errors), MAX_NODES))
        if error is None and not wrong:
            return
        first = [(class_type, errors[0].get("type")) for _, class_type, errors in wrong[:1] if errors]
        if not self._is_due(str((None if error is None else error.get("type"), first))[:MOST_CHARACTERS]):
            self._left_out += 1
            return
        for node_id, class_type, errors in wrong:
            text = "; ".join(text_of(one) for one in errors[:MAX_NODES])
            log.error("Node %s (%s) cannot run: %s", brief(node_id), class_type, brief(text, MOST_CHARACTERS))
        if wrong and (more := len(node_errors) - len(wrong)):
            log.error("%d more nodes cannot run", more)
        if error is not None:
            log.warning("Refused a prompt: %.1000s %.1000s", error.get("message"), error.get("details"))
        if self._left_out:
            log.warning("%d more prompts had errors of kinds that were told within a minute before", self._left_out)
            self._left_out = 0


def _wrong_nodes(node_errors: Any) -> Iterator[tuple[str, str, list[Any]]]:
    """(id, class, errors) of each node with errors."""
    for node_id, entry in node_errors.items() if isinstance(node_errors, dict) else ():
        errors = entry.get("errors") if isinstance(entry, dict) else None
        if isinstance(errors, list):
            whole = [one for one in errors if isinstance(one, dict) and {"message", "details"} <= one.keys()]
            yield str(node_id), str(entry.get("class_type")), whole
