"""Latents of several kinds at once, as models of video with sound use them: a list of tensors that counts as one latent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from comfy.images.batches import pack_latents, reshape_mask, unpack_latents
from comfy.lazy_import import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

torch = lazy_module("torch")


class NestedTensor:
    """Several tensors of one batch size; the first one (a video) stands for all where one is asked for.

    Arithmetic goes tensor by tensor, with another one of these or with the same value for all, and gives a new one.
    """

    is_nested = True

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors = list(tensors)

    def unbind(self) -> list[Tensor]:
        """The tensors themselves."""
        return self.tensors

    def apply_operation(self, other: Any, operation: Callable[[Tensor, Any], Any]) -> NestedTensor:
        """*operation* of each tensor and its counterpart in *other*, or *other* itself."""
        others = other.tensors if isinstance(other, NestedTensor) else [other] * len(self.tensors)
        return NestedTensor(operation(own, counterpart) for own, counterpart in zip(self.tensors, others, strict=True))

    def __add__(self, other: Any) -> NestedTensor:
        return self.apply_operation(other, lambda own, theirs: own + theirs)

    def __sub__(self, other: Any) -> NestedTensor:
        return self.apply_operation(other, lambda own, theirs: own - theirs)

    def __mul__(self, other: Any) -> NestedTensor:
        return self.apply_operation(other, lambda own, theirs: own * theirs)

    def __truediv__(self, other: Any) -> NestedTensor:
        return self.apply_operation(other, lambda own, theirs: own / theirs)

    def __getitem__(self, index: Any) -> NestedTensor:
        return NestedTensor(tensor[index] for tensor in self.tensors)

    def to(self, *args: Any, **kwargs: Any) -> NestedTensor:
        """Each on another device or in another dtype."""
        return NestedTensor(tensor.to(*args, **kwargs) for tensor in self.tensors)

    def float(self) -> NestedTensor:
        """Each in float32."""
        return self.to(dtype=torch.float32)

    def cpu(self) -> NestedTensor:
        """Each on the CPU."""
        return self.to(device="cpu")

    def chunk(self, *args: Any, **kwargs: Any) -> NestedTensor:
        """The pieces of each, as tuples in the place of tensors."""
        return self.apply_operation(None, lambda own, _: own.chunk(*args, **kwargs))

    def new_ones(self, *args: Any, **kwargs: Any) -> Tensor:
        """A plain tensor of ones like the first one."""
        return self.tensors[0].new_ones(*args, **kwargs)

    def size(self) -> Any:
        """The size of the first one."""
        return self.tensors[0].size()

    @property
    def shape(self) -> Any:
        """The shape of the first one."""
        return self.tensors[0].shape

    @property
    def ndim(self) -> int:
        """The most dimensions that one of them has."""
        return max(tensor.ndim for tensor in self.tensors)

    @property
    def device(self) -> Any:
        """The device of the first one."""
        return self.tensors[0].device

    @property
    def dtype(self) -> Any:
        """The dtype of the first one."""
        return self.tensors[0].dtype

    @property
    def nbytes(self) -> int:
        """The bytes of all."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def layout(self) -> Any:
        """The layout of the first one."""
        return self.tensors[0].layout

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tensors!r})"


def cat_nested(tensors: Sequence[NestedTensor], *args: Any, **kwargs: Any) -> NestedTensor:
    """Several of these, their tensors joined kind by kind as ``torch.cat`` does with *args* and *kwargs*."""
    return NestedTensor(torch.cat(parts, *args, **kwargs) for parts in zip(*(nested.tensors for nested in tensors), strict=True))


class PackedLatents:
    """How the parts of *latent* lie in the one flat tensor (batch x 1 x numbers) that is sampled; a plain tensor is sampled as it is."""

    def __init__(self, latent: Any) -> None:
        self.shapes = [part.shape for part in (latent.unbind() if latent.is_nested else [latent])]

    def packed(self, latent: Any) -> Tensor:
        """*latent*, or noise of its form, as it is sampled."""
        return pack_latents(latent.unbind())[0] if latent.is_nested else latent

    def apart(self, packed: Tensor) -> Any:
        """*packed* in the form of the latent."""
        return packed if len(self.shapes) == 1 else NestedTensor(unpack_latents(packed, self.shapes))

    def mask(self, mask: Any, device: Any) -> Tensor:
        """*mask*, of each part or of the first ones, in the shape of what is sampled: float32 on *device*, 1 for the other parts."""
        given = mask.unbind() if mask.is_nested else [mask]
        masks = [reshape_mask(part, shape).to(device) for part, shape in zip(given, self.shapes)]
        masks += [torch.ones(shape, device=device) for shape in self.shapes[len(masks) :]]
        return (masks[0] if len(masks) == 1 else pack_latents(masks)[0]).float()

    def callback(self, callback: Callable[..., None] | None) -> Callable[..., None] | None:
        """*callback*, called with latents in the form of the latent."""
        if callback is None or len(self.shapes) == 1:
            return callback

        def apart(step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
            callback(step, self.apart(x0), self.apart(x), total_steps)

        return apart
