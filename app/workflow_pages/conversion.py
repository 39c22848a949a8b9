"""Turns a saved workflow into a prompt."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.workflow_pages.errors import WorkflowFormatError
from app.workflow_pages.finishing import finish
from app.workflow_pages.graph_loading import NodeInfo, load_graphs
from app.workflow_pages.numbering import mend_ids
from app.workflow_pages.page_file import read_workflow
from app.workflow_pages.primitives import hand_out_values
from app.workflow_pages.prompt_building import build_prompt, nodes_of
from app.workflow_pages.texts import Choose, Now, Replacements, choose_any


def page_to_prompt(
    document: Mapping[str, Any], node_info: NodeInfo, choose: Choose = choose_any, now: Now = datetime.now
) -> dict[str, Any]:
    """The prompt that the page would send for *document*, a saved workflow; *document* stays as it is.

    *node_info* gives a class's ``/object_info`` entry, or None for an unknown class, whose nodes keep their links only. *choose*
    picks from ``{a|b}`` in texts, *now* fills ``%date:…%``. Raises ``WorkflowFormatError``.
    """
    try:
        return _converted(document, node_info, choose, now)
    except RecursionError as error:
        raise WorkflowFormatError("the saved workflow's values are nested too deeply") from error


def _converted(document: Mapping[str, Any], node_info: NodeInfo, choose: Choose, now: Now) -> dict[str, Any]:
    workflow = read_workflow(document)
    mend_ids(workflow)
    graphs = load_graphs(workflow, node_info)
    replacements = Replacements(nodes_of(graphs), now)
    for graph in graphs:
        finish(graph)
    for graph in graphs:
        hand_out_values(graph, replacements)
    return build_prompt(graphs[-1], replacements, choose)
