"""Telling a saved workflow from a prompt, and turning either into a prompt."""

from typing import Any

from app.workflow_pages.conversion import page_to_prompt
from app.workflow_pages.errors import WorkflowFormatError
from app.workflow_pages.graph_loading import NodeInfo

__all__ = ["NodeInfo", "WorkflowFormatError", "is_prompt", "is_saved_workflow", "to_prompt"]


def is_prompt(document: Any) -> bool:
    """Whether *document* already is in the executor's format: ids mapped to nodes with a ``class_type``."""
    return (
        isinstance(document, dict) and bool(document) and all(isinstance(node, dict) and "class_type" in node for node in document.values())
    )


def is_saved_workflow(document: Any) -> bool:
    """Whether *document* looks like a workflow that the page saved, which ``to_prompt`` can turn into a prompt."""
    return isinstance(document, dict) and isinstance(document.get("nodes"), list) and not is_prompt(document)


def to_prompt(document: Any, node_info: NodeInfo) -> dict[str, Any]:
    """The prompt for *document*: a prompt already, a request body that holds one, or a workflow saved by the page.

    *node_info* gives a class's ``/object_info`` entry, or None for an unknown class, whose nodes keep their links only, so that
    validation can name them. Raises ``WorkflowFormatError`` and nothing else.
    """
    if isinstance(document, dict) and isinstance(document.get("prompt"), dict) and is_prompt(document["prompt"]):
        document = document["prompt"]
    if is_prompt(document):
        return dict(document)
    if not is_saved_workflow(document):
        raise WorkflowFormatError(
            "neither a saved workflow (an object with 'nodes') nor a prompt (ids mapped to objects with "
            "'class_type'); save it from the page with Export or Export (API)"
        )
    return page_to_prompt(document, node_info)
