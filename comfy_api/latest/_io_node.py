"""The base class of V3 nodes, with the V1 attributes that the executor and older code read."""

import inspect
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final, final

from comfy_api.internal.class_tools import classproperty, first_real_override, lock_class
from comfy_api.internal.node_markers import _ComfyNodeInternal

from ._io_hidden import HiddenHolder
from ._io_nesting import expand_inputs, has_dynamic_inputs, nest_arguments
from ._io_output import NodeOutput, normalize_output
from ._io_schema import NodeInfoV1, Schema

# V1 attribute -> schema field.
_TRAITS: Final = {
    "DESCRIPTION": "description", "CATEGORY": "category", "EXPERIMENTAL": "is_experimental", "DEPRECATED": "is_deprecated",
    "DEV_ONLY": "is_dev_only", "API_NODE": "is_api_node", "OUTPUT_NODE": "is_output_node",
    "HAS_INTERMEDIATE_OUTPUT": "has_intermediate_output", "INPUT_IS_LIST": "is_input_list", "NOT_IDEMPOTENT": "not_idempotent",
    "ACCEPT_ALL_INPUTS": "accept_all_inputs", "SEARCH_ALIASES": "search_aliases", "ESSENTIALS_CATEGORY": "essentials_category",
}  # fmt: skip
# V1 attribute -> one of Schema.output_lists.
_OUTPUT_LISTS: Final = {
    "RETURN_TYPES": "output", "RETURN_NAMES": "output_name", "OUTPUT_IS_LIST": "output_is_list", "OUTPUT_TOOLTIPS": "output_tooltips",
}  # fmt: skip


class _OnlyWhenOverridden:
    """A class attribute that exists only on node classes that define *method* themselves."""

    def __init__(self, method: str, default: "classmethod[Any, ..., Any] | None" = None) -> None:
        self.method = method
        self.default = default

    def __get__(self, instance: object, owner: type) -> Any:
        override = _override(owner, self.method)
        if override is None:
            raise AttributeError(f"{owner.__name__} does not define {self.method}")
        return override if self.default is None else self.default.__get__(owner)


def _override(cls: type, name: str) -> Any:
    return first_real_override(cls, name, base=ComfyNode)


def _real_class(cls: "type[ComfyNode]") -> "type[ComfyNode]":
    """The author's class behind a locked clone."""
    return vars(cls).get("_clone_of", cls)


def _settled(cls: "type[ComfyNode]") -> dict[str, Any]:
    """The V1 attributes of *cls*, from the schema at the time of the first question."""
    real = _real_class(cls)
    if "_v1_attributes" not in vars(real):
        real.GET_SCHEMA()
    return vars(real)["_v1_attributes"]


def _all_missing(cls: type, **kwargs: Any) -> list[str]:
    """ComfyUI's default ``check_lazy_status``: every input without a value is needed."""
    return [name for name, value in kwargs.items() if value is None]


def _v1_attribute(name: str) -> classproperty:
    attribute = classproperty(lambda cls: _settled(cls)[name])
    attribute.__doc__ = f"V1's ``{name}``, from the schema."
    return attribute


class ComfyNode(_ComfyNodeInternal):
    """Base class of V3 nodes: define ``define_schema`` and ``execute`` as class methods.

    There are no instances. While a node runs, ``cls`` is a read-only clone of its class that carries ``cls.hidden``.
    """

    RELATIVE_PYTHON_MODULE: str | None = None
    SCHEMA: Schema | None = None
    hidden: HiddenHolder = None  # type: ignore[assignment]  # None only on the class itself, never while a node runs
    _v1_attributes: dict[str, Any]
    _is_dynamic: bool

    @classmethod
    def define_schema(cls) -> Schema:
        """Return the node's schema. Called each time inputs are listed, so it may read folders."""
        raise NotImplementedError(f"{cls.__name__}.define_schema() is missing: return an io.Schema")

    @classmethod
    def execute(cls, *args: Any, **kwargs: Any) -> Any:
        """Do the node's work and return an ``io.NodeOutput``. Inputs arrive by id; this may be a coroutine function."""
        raise NotImplementedError(f"{cls.__name__}.execute() is missing: return an io.NodeOutput")

    @classmethod
    def validate_inputs(cls, *args: Any, **kwargs: Any) -> bool | str:
        """Optional: check inputs before anything runs; return True or the reason for a refusal. The signature names the inputs to check."""
        raise NotImplementedError

    @classmethod
    def fingerprint_inputs(cls, *args: Any, **kwargs: Any) -> Any:
        """Optional: return a value that changes when the node must run again although its inputs are the same."""
        raise NotImplementedError

    # Optional class method: from the inputs that are available (the others are None) return the names of lazy inputs that are needed.
    check_lazy_status = _OnlyWhenOverridden("check_lazy_status", classmethod(_all_missing))

    def __init__(self) -> None:
        type(self).VALIDATE_CLASS()

    @final
    @classmethod
    def GET_BASE_CLASS(cls) -> type:  # noqa: N802
        """The base class, whose optional methods do not count as defined."""
        return ComfyNode

    @final
    @classmethod
    def VALIDATE_CLASS(cls) -> None:  # noqa: N802
        """Raise ``TypeError`` when the author's class lacks ``define_schema`` or ``execute``."""
        for name in ("define_schema", "execute"):
            if _override(cls, name) is None:
                raise TypeError(f"node class {cls.__name__} must define the class method {name}")
            if not isinstance(inspect.getattr_static(cls, name), classmethod | staticmethod):
                raise TypeError(f"{cls.__name__}.{name} must be a @classmethod: V3 nodes have no instances")

    @final
    @classmethod
    def FINALIZE_SCHEMA(cls) -> Schema:  # noqa: N802
        """The node's current schema, finalised. Raises ``TypeError`` when ``define_schema`` returned anything else."""
        schema = cls.define_schema()
        if not isinstance(schema, Schema):
            raise TypeError(f"{cls.__name__}.define_schema() must return an io.Schema, not {type(schema).__name__}")
        schema.finalize()
        return schema

    @final
    @classmethod
    def GET_SCHEMA(cls) -> Schema:  # noqa: N802
        """The node's current schema, finalised and checked; the first call also sets the V1 attributes."""
        real = _real_class(cls)
        real.VALIDATE_CLASS()
        schema = real.FINALIZE_SCHEMA()
        schema.validate()
        if "_v1_attributes" not in vars(real):
            lists = schema.output_lists()
            attributes = {name: getattr(schema, trait) for name, trait in _TRAITS.items()}
            real._v1_attributes = attributes | {name: lists[key] for name, key in _OUTPUT_LISTS.items()}
            real._is_dynamic = has_dynamic_inputs(schema.inputs)
        real.SCHEMA = schema
        return schema

    @final
    @classmethod
    def PREPARE_CLASS_CLONE(cls, hidden: Mapping[Any, Any] | None) -> type["ComfyNode"]:  # noqa: N802
        """A locked clone of this class for one run, with ``.hidden`` filled from *hidden* (field name to value).

        Setting an attribute on it raises ``AttributeError``. ComfyUI's bundle ``{"hidden_inputs": …}`` is accepted as well.
        """
        given = hidden.get("hidden_inputs", hidden) if hidden else {}
        real = _real_class(cls)
        return lock_class(real, {"hidden": HiddenHolder.from_dict(given), "_clone_of": real})

    @final
    @classmethod
    def EXECUTE_NORMALIZED(cls, *args: Any, **kwargs: Any) -> NodeOutput:  # noqa: N802
        """Call ``execute`` and return its result as a ``NodeOutput``. Raises ``TypeError`` for a result that cannot be one."""
        return cls._normalized(cls.execute(*args, **kwargs))

    @final
    @classmethod
    async def EXECUTE_NORMALIZED_ASYNC(cls, *args: Any, **kwargs: Any) -> NodeOutput:  # noqa: N802
        """``EXECUTE_NORMALIZED`` for nodes whose ``execute`` is a coroutine function."""
        return cls._normalized(await cls.execute(*args, **kwargs))

    @classmethod
    def _normalized(cls, returned: Any) -> NodeOutput:
        schema = cls.SCHEMA or cls.GET_SCHEMA()
        return normalize_output(returned, schema.node_id, len(schema.outputs), schema.enable_expand)

    @final
    @classmethod
    def INPUT_TYPES(cls, live_inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:  # noqa: N802
        """V1's description of the inputs; for a prompt with *live_inputs*, groups are expanded into flat ids."""
        schema = cls.FINALIZE_SCHEMA()
        sections = schema.input_dict()
        if live_inputs is None or not has_dynamic_inputs(schema.inputs):
            return sections
        expanded: dict[str, Any] = expand_inputs(schema.inputs, live_inputs)
        return expanded | ({"hidden": sections["hidden"]} if "hidden" in sections else {})

    @final
    @classmethod
    def NEST_INPUTS(cls, flat: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        """The arguments of ``execute`` for flat ids such as ``group.name``."""
        _settled(cls)
        if not vars(_real_class(cls))["_is_dynamic"]:
            return dict(flat)
        return nest_arguments(cls.FINALIZE_SCHEMA().inputs, flat)

    @final
    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:  # noqa: N802
        """This node's entry of ``/object_info``."""
        info = cls.GET_SCHEMA().get_v1_info(cls)
        return {one.name: getattr(info, one.name) for one in fields(NodeInfoV1)}

    @classproperty
    def FUNCTION(cls) -> str:  # noqa: N802, N805
        """The name of the method to call, which is a coroutine function if ``execute`` is one."""
        return "EXECUTE_NORMALIZED_ASYNC" if inspect.iscoroutinefunction(cls.execute) else "EXECUTE_NORMALIZED"

    IS_CHANGED = _OnlyWhenOverridden("fingerprint_inputs")
    VALIDATE_INPUTS = _OnlyWhenOverridden("validate_inputs")

    DESCRIPTION = _v1_attribute("DESCRIPTION")
    CATEGORY = _v1_attribute("CATEGORY")
    EXPERIMENTAL = _v1_attribute("EXPERIMENTAL")
    DEPRECATED = _v1_attribute("DEPRECATED")
    DEV_ONLY = _v1_attribute("DEV_ONLY")
    API_NODE = _v1_attribute("API_NODE")
    OUTPUT_NODE = _v1_attribute("OUTPUT_NODE")
    HAS_INTERMEDIATE_OUTPUT = _v1_attribute("HAS_INTERMEDIATE_OUTPUT")
    INPUT_IS_LIST = _v1_attribute("INPUT_IS_LIST")
    NOT_IDEMPOTENT = _v1_attribute("NOT_IDEMPOTENT")
    ACCEPT_ALL_INPUTS = _v1_attribute("ACCEPT_ALL_INPUTS")
    SEARCH_ALIASES = _v1_attribute("SEARCH_ALIASES")
    ESSENTIALS_CATEGORY = _v1_attribute("ESSENTIALS_CATEGORY")
    RETURN_TYPES = _v1_attribute("RETURN_TYPES")
    RETURN_NAMES = _v1_attribute("RETURN_NAMES")
    OUTPUT_IS_LIST = _v1_attribute("OUTPUT_IS_LIST")
    OUTPUT_TOOLTIPS = _v1_attribute("OUTPUT_TOOLTIPS")
