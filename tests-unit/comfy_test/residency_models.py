"""Small modules, and managers for devices of any size, for the tests of residency and patching."""

import contextlib
from collections.abc import Callable, Iterator

import torch

import comfy.model_management
import comfy.ops
from comfy import cli_args
from comfy.families.weight_names import WeightNames, WeightPart
from comfy.model_patcher import ModelPatcher
from comfy.ram_model_cache.host_memory import HostMemory
from comfy.residency.arena_pinner import ArenaPinner
from comfy.residency.device_table import DeviceTable
from comfy.residency.loaded_models import LoadedModels
from comfy.residency.manager import ModelManager
from comfy.residency.model_cache import AnyCache, CacheOwner

HOST = torch.device("cpu")
MIB = 1024 * 1024


class Layers(torch.nn.Module):
    """Three linear layers that can stream, a norm that cannot, a buffer. Weights follow from *seed*."""

    def __init__(self, width: int = 32, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        linear = comfy.ops.disable_weight_init.Linear
        self.first, self.second, self.last = linear(width, 2 * width), linear(2 * width, width), linear(width, width)
        self.norm = torch.nn.LayerNorm(width)
        self.register_buffer("shift", torch.full((width,), 0.5))
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.requires_grad_(False).copy_(torch.randn(parameter.shape, generator=generator))
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any batch of *width* numbers."""
        return self.norm(self.last(torch.relu(self.second(torch.relu(self.first(x)))))) + self.shift


class Fused(torch.nn.Module):
    """A module whose published names differ: ``block.qkv.weight`` is three parameters, ``block.out.weight`` has another shape."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        linear = comfy.ops.disable_weight_init.Linear
        self.to_q, self.to_k, self.to_v, self.to_out = (linear(width, width, bias=False) for _ in range(4))
        generator = torch.Generator().manual_seed(5)
        for parameter in self.parameters():
            parameter.requires_grad_(False).copy_(torch.randn(parameter.shape, generator=generator))
        parts = tuple(WeightPart(f"to_{name}.weight", 0, index * width, width) for index, name in enumerate("qkv"))
        self.weight_names = WeightNames(
            {"block.qkv.weight": parts, "block.out.weight": (WeightPart("to_out.weight", 0, 0, width, (width, width)),)},
            {"block.qkv.weight": (3 * width, width), "block.out.weight": (width, width, 1, 1)},
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any batch of *width* numbers."""
        return self.to_out(torch.sigmoid(self.to_q(x) * self.to_k(x)) * self.to_v(x))


def arguments(**changes: object):
    """The default flags with *changes*."""
    settings = cli_args.parser.parse_args([])
    for name, value in changes.items():
        assert hasattr(settings, name), name
        setattr(settings, name, value)
    return settings


@contextlib.contextmanager
def management(
    vram_bytes: int | None = None,
    devices: int = 1,
    cache: Callable[[CacheOwner], AnyCache] | None = None,
    memory: HostMemory | None = None,
    pinner: ArenaPinner | None = None,
    **flags: object,
) -> Iterator[ModelManager]:
    """The process's manager is one for the CPU (None) or for simulated devices of *vram_bytes* each.

    *cache* makes its RAM model cache from the cache's owner, who is told of *memory*.
    """
    settings = arguments(cpu=vram_bytes is None, simulated_vram_mb=0 if vram_bytes is None else 1, simulated_vram_devices=devices, **flags)
    table = DeviceTable(settings)
    for device in table.accelerators:
        device._capacity_bytes = vram_bytes
    loaded = LoadedModels()
    owner = CacheOwner(loaded, memory=memory or HostMemory(), accelerators=lambda: table.accelerators)
    manager = ModelManager(settings, table, ram_cache=None if cache is None else cache(owner), loaded=loaded, pinner=pinner)
    before = comfy.model_management.use_manager(manager)
    try:
        yield manager
    finally:
        comfy.model_management.use_manager(before)


def patcher_of(module: torch.nn.Module, device: torch.device | None = None) -> ModelPatcher:
    """A patcher that computes *module* on the manager's device, or on *device*."""
    return ModelPatcher(module, comfy.model_management.get_torch_device() if device is None else device, HOST)


def batch(width: int = 32) -> torch.Tensor:
    """An input that is the same every time."""
    return torch.randn(3, width, generator=torch.Generator().manual_seed(9))
