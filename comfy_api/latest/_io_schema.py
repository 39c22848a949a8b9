"""The declaration of a V3 node, its checks, and its entry in ``/object_info``."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ._io_base import Input, Output
from ._io_dynamic import create_input_dict_v1
from ._io_hidden import Hidden
from ._io_match import MatchType
from ._io_price import PriceBadge

API_NODE_HIDDEN = (Hidden.auth_token_comfy_org, Hidden.api_key_comfy_org, Hidden.comfy_usage_source)
OUTPUT_NODE_HIDDEN = (Hidden.prompt, Hidden.extra_pnginfo)


@dataclass
class NodeInfoV1:
    """One entry of ``/object_info``; fields are printed under their own names."""

    input: dict | None = None
    input_order: dict[str, list[str]] | None = None
    is_input_list: bool | None = None
    output: list[str] | None = None
    output_is_list: list[bool] | None = None
    output_name: list[str] | None = None
    output_tooltips: list[str | None] | None = None
    output_matchtypes: list[str | None] | None = None
    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    python_module: Any = None
    category: str | None = None
    output_node: bool | None = None
    deprecated: bool | None = None
    experimental: bool | None = None
    dev_only: bool | None = None
    api_node: bool | None = None
    price_badge: dict | None = None
    search_aliases: list[str] | None = None
    essentials_category: str | None = None
    has_intermediate_output: bool | None = None


@dataclass
class Schema:
    """A node's id, inputs, outputs and properties.

    ``node_id`` must be unique among all packs, so give it a prefix. ``category`` is a menu path with ``/``. ``hidden`` lists the values
    that the node wants in ``cls.hidden``. With ``is_input_list`` the node is called once, with lists. ``is_output_node`` makes it run
    although nothing depends on it; ``has_intermediate_output`` only keeps what it shows. ``not_idempotent`` keeps two equal nodes apart
    in the cache. ``accept_all_inputs`` also passes on inputs of the prompt that are not in ``inputs``. ``enable_expand`` lets it return a
    subgraph.
    """

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Input] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    description: str = ""
    search_aliases: list[str] = field(default_factory=list)
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False
    is_dev_only: bool = False
    is_api_node: bool = False
    price_badge: PriceBadge | None = None
    not_idempotent: bool = False
    enable_expand: bool = False
    accept_all_inputs: bool = False
    essentials_category: str | None = None
    has_intermediate_output: bool = False

    def validate(self) -> None:
        """Raise ``ValueError``, naming the node and the mistake, for an id that is used twice or an invalid socket or badge."""
        for side, sockets in (("input", self.inputs), ("output", self.outputs)):
            twice = _repeated(socket.id for socket in sockets)
            if twice:
                raise ValueError(f"node {self.node_id!r}: {side} ids must be unique, but {', '.join(map(repr, twice))} occur repeatedly")
        for socket in (*self.inputs, *self.outputs):
            socket.validate()
        if self.price_badge is not None:
            self.price_badge.validate()

    def finalize(self) -> None:
        """Fill in derived values: lists for None, hidden values that outputs and paid nodes need, ids of outputs."""
        self.inputs = _socket_list(self.inputs, Input, self.node_id, "inputs")
        self.outputs = _socket_list(self.outputs, Output, self.node_id, "outputs")
        wanted = list(self.hidden or [])
        for applies, implied in ((self.is_api_node, API_NODE_HIDDEN), (self.is_output_node, OUTPUT_NODE_HIDDEN)):
            wanted += [value for value in implied if applies and value not in wanted]
        self.hidden = wanted
        for position, output in enumerate(self.outputs):
            if output.id is None:
                output.id = f"_{position}_{output.io_type}_"

    def input_dict(self) -> dict[str, Any]:
        """``INPUT_TYPES`` as V1 code reads it; a hidden value is a one-item tuple under its lower-case name."""
        sections = create_input_dict_v1(self.inputs)
        if self.hidden:
            sections["hidden"] = {value.name: (value.value,) for value in self.hidden}
        return sections

    def get_v1_info(self, cls: type) -> NodeInfoV1:
        """The ``/object_info`` entry of node class *cls*, which has this schema."""
        sections = self.input_dict()
        matched = [output.template.template_id if isinstance(output, MatchType.Output) else None for output in self.outputs]
        return NodeInfoV1(
            input=sections,
            input_order={section: list(entries) for section, entries in sections.items()},
            is_input_list=self.is_input_list,
            **self.output_lists(),
            output_matchtypes=matched if any(matched) else None,
            name=self.node_id,
            display_name=self.display_name or self.node_id,
            description=self.description,
            python_module=getattr(cls, "RELATIVE_PYTHON_MODULE", None) or "nodes",
            category=self.category,
            output_node=self.is_output_node,
            deprecated=self.is_deprecated,
            experimental=self.is_experimental,
            dev_only=self.is_dev_only,
            api_node=self.is_api_node,
            price_badge=None if self.price_badge is None else self.price_badge.as_dict(self.inputs),
            search_aliases=self.search_aliases or None,
            essentials_category=self.essentials_category,
            has_intermediate_output=self.has_intermediate_output,
        )

    def output_lists(self) -> dict[str, list[Any]]:
        """The four parallel lists that describe the outputs."""
        return {
            "output": [output.io_type for output in self.outputs],
            "output_is_list": [output.is_output_list for output in self.outputs],
            "output_name": [output.display_name or output.io_type for output in self.outputs],
            "output_tooltips": [output.tooltip or None for output in self.outputs],
        }


def _repeated(ids: Any) -> list[str]:
    return [name for name, count in Counter(ids).items() if count > 1 and name is not None]


def _socket_list(sockets: Sequence[Any] | None, kind: type, node_id: str, field_name: str) -> list[Any]:
    """*sockets* as a list. Raises ``TypeError``, naming the field, for a type (``io.Int``) that is passed instead of a socket."""
    found = [] if sockets is None else list(sockets)
    for socket in found:
        if not isinstance(socket, kind):
            shown = socket.__name__ if isinstance(socket, type) else repr(socket)
            raise TypeError(f"node {node_id!r}: {field_name} holds {shown}; it takes objects such as io.Image.{kind.__name__}(...)")
    return found
