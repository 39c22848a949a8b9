"""What the rules need to know of one of torch's operations, read from its schema once."""

from __future__ import annotations

from typing import Any

import torch

aten = torch.ops.aten
TAGS = torch.Tag

# Elementwise, though torch does not mark them so: a host scalar may stand beside card tensors.
ALSO_POINTWISE = (
    aten.where, aten.lerp, aten.lerp_, aten.addcmul, aten.addcdiv, aten.clamp, aten.fill, aten.fill_, aten.masked_fill, aten.masked_fill_,
    aten.copysign, aten.pow, aten.floor_divide, aten.remainder, aten.maximum, aten.minimum, aten.div,
)  # fmt: skip
BOUNDS = (aten.linspace, aten.bucketize)
WAITS = (aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.equal, aten.is_nonzero, aten.repeat_interleave)
LOOKS_ONLY = (aten.is_same_size, aten.sym_size)
INDEXES = (aten.index, aten._unsafe_index)
INDEX_WRITES = (aten.index_put_, aten.index_put, aten._index_put_impl_, aten._unsafe_index_put)
EMPTY = (aten.empty, aten.empty_like, aten.empty_strided, aten.empty_permuted, aten.new_empty, aten.new_empty_strided)
# What the mode has a method of its own for.
OWN_RULES = {
    torch.ops.prim.device: "_device", aten._to_copy: "_to_copy", aten.copy_: "_copy", aten.copy: "_copy", aten._local_scalar_dense: "_item",
    aten._pin_memory: "_lock_copy", aten.pin_memory: "_lock_copy", aten.is_pinned: "_is_locked", aten.record_stream: "_record_stream",
    aten._has_compatible_shallow_copy_type: "_can_take_data",
}  # fmt: skip
# One kernel on a card. Attention taken apart would no longer be the host's bit for bit; the others would take longer, to no use.
WHOLE = (
    aten.scaled_dot_product_attention, aten._scaled_dot_product_attention_math,
    aten.linear, aten.conv1d, aten.conv2d, aten.conv3d, aten.layer_norm, aten.group_norm,
)  # fmt: skip


class Operation:
    """Facts of one overload: which arguments it writes, whether it is elementwise, a view, a factory, or must be taken apart."""

    _known: dict[int, Operation] = {}  # by id: overloads hash slowly; each is kept alive here

    def __init__(self, func: Any) -> None:
        schema, packet = func._schema, getattr(func, "overloadpacket", None)
        written = [argument for argument in schema.arguments if argument.alias_info is not None and argument.alias_info.is_write]
        positions = {argument.name: position for position, argument in enumerate(schema.arguments)}
        self.name = str(func).removeprefix("aten.")
        self.func, self.packet, self.run = func, packet, getattr(func, "_op", func)
        self.own_rule = OWN_RULES.get(packet)
        self.writes = tuple(positions[argument.name] for argument in written if not argument.kwarg_only)
        self.written_names = tuple(argument.name for argument in written if argument.kwarg_only)
        self.is_view = any(value.alias_info is not None and not value.alias_info.is_write for value in schema.returns)
        self.makes_all = all(value.alias_info is None for value in schema.returns)  # no result is an argument, or a part of one
        self.allows_scalars = TAGS.pointwise in func.tags or packet in ALSO_POINTWISE or packet in BOUNDS
        self.indexes, self.index_writes = packet in INDEXES, packet in INDEX_WRITES
        self.waits = packet in WAITS or (TAGS.dynamic_output_shape in func.tags and not self.indexes)  # indices: only boolean ones
        self.only_allocates = packet in EMPTY
        self.looks_only = packet in LOOKS_ONLY
        has = torch._C._dispatch_has_kernel_for_dispatch_key
        self.is_composite = packet not in WHOLE and has(func.name(), "CompositeImplicitAutograd") and not has(func.name(), "CPU")

    @classmethod
    def of(cls, func: Any) -> Operation:
        """The facts of *func*."""
        found = cls._known.get(id(func))
        if found is None:
            found = cls._known[id(func)] = cls(func)
        return found

    def written_operands(self, args: Any, kwargs: Any) -> list[Any]:
        """The tensors (perhaps lists of them) that a call writes."""
        return [args[position] for position in self.writes if position < len(args)] + [
            kwargs[name] for name in self.written_names if name in kwargs
        ]
