"""What the networks of transformer families share: how they get their weights, and the wrappers and replacements that node packs set."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

import torch

import comfy.patcher_extension
from comfy.families.diffusers_unet import RenamedSource
from comfy.families.published_weights import load_published
from comfy.families.quantised_weights import plain_weights
from comfy.families.weight_source import PrefixedSource, StateDictSource, WeightSource

WHAT = "the diffusion model"
Options = dict[str, Any]
BlockName = tuple[str, int]
Block = Callable[[Mapping[str, Any]], dict[str, Any]]


class DiffusionTransformer(torch.nn.Module):
    """A network whose parameters have the published names.

    A subclass defines ``_forward`` and calls :meth:`wrapped` in ``forward``. ``dtype`` is the dtype its weights are kept in.
    ``PATCH_BLOCKS`` maps the names under which ``transformer_options["patches_replace"]["dit"]`` replaces blocks to the lists they are in.
    ``FLOAT32``: with what the names of weights begin that are kept in float32, whatever ``dtype`` is.
    """

    PATCH_BLOCKS: Mapping[str, str] = {}
    FLOAT32: tuple[str, ...] = ()
    dtype: torch.dtype | None
    weights_device: torch.device | None = None

    @staticmethod
    def parameter_name(key: str) -> str:
        """The parameter that the tensor *key* of a file (without prefix) is for."""
        return key

    def load_weights(self, source: WeightSource | MutableMapping[str, torch.Tensor], prefix: str = "") -> None:
        """Make the tensors of *source* below *prefix* the parameters, floating ones in ``dtype`` or as ``FLOAT32`` says, without copying
        those that have it.

        A plain dict loses the tensors that were used. Raises ``ModelFileError`` if tensors are missing or do not fit.
        """
        if isinstance(source, MutableMapping):
            source = StateDictSource(source, consume=True)
        part = plain_weights(PrefixedSource(source, prefix))
        names = {self.parameter_name(key): key for key in part.shapes()}
        if any(name != key for name, key in names.items()):
            part = RenamedSource(part, names, {name: part.shapes()[key] for name, key in names.items()})
        load_published(self, part, self.dtype, WHAT, self.weights_device, self.FLOAT32)

    def wrapped(self, *arguments: Any, options: Options, **extra: Any) -> torch.Tensor:
        """``_forward`` with *arguments* and *extra*, through the DIFFUSION_MODEL wrappers in *options*."""
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
        forward: Any = self._forward
        return comfy.patcher_extension.WrapperExecutor.new_class_executor(forward, self, wrappers).execute(*arguments, **extra)

    def patch_blocks(self) -> Iterable[BlockName]:
        """The names of all blocks that can be replaced."""
        return ((name, number) for name, blocks in self.PATCH_BLOCKS.items() for number in range(len(getattr(self, blocks))))


def without_weights(network: Callable[..., torch.nn.Module]) -> Callable[..., torch.nn.Module]:
    """The constructor *network* for one whose weights come later: its parameters are on the meta device until ``load_weights``, which
    brings them to the device that the constructor was given.
    """

    @functools.wraps(network, updated=())
    def build(*arguments: Any, device: torch.device | None = None, **settings: Any) -> torch.nn.Module:
        built: Any = network(*arguments, device=torch.device("meta"), **settings)
        built.weights_device = device
        return built

    return build


def run_block(options: Mapping[str, Any], name: BlockName, arguments: dict[str, Any], original: Block) -> dict[str, Any]:
    """The results, by name, of the block *name* for *arguments*: from what ``patches_replace["dit"]`` of *options* holds for it, which is
    given *original* as ``original_block``, else from *original*.
    """
    replacement = options.get("patches_replace", {}).get("dit", {}).get(name)
    return original(arguments) if replacement is None else replacement(arguments, {"original_block": original})
