"""The schema of nodes that take a model and give a changed clone of it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io


def model_patch_schema(node_id: str, category: str, *inputs: io.Input, output_name: str | None = None, **options: Any) -> io.Schema:
    """A schema with the input ``model`` before *inputs*, and one model as output, called *output_name* if that is given."""
    sockets = [io.Model.Input("model"), *inputs]
    return io.Schema(node_id=node_id, category=category, inputs=sockets, outputs=[io.Model.Output(display_name=output_name)], **options)


def share_input(name: str, default: float, **options: Any) -> io.Float.Input:
    """An advanced input for a share of the sampling, 0 to 1."""
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.001, advanced=True, **options)


def layers_input(name: str, **options: Any) -> io.String.Input:
    """An advanced input for the numbers of layers, in a text."""
    return io.String.Input(name, default="7, 8, 9", advanced=True, **options)
