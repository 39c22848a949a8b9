"""The formats in which LoRA files store changes of weights."""

from comfy.weight_adapter.base import WeightAdapterBase
from comfy.weight_adapter.bypass import BypassForwardHook, create_bypass_injections_from_patches
from comfy.weight_adapter.glora import GLoRAAdapter
from comfy.weight_adapter.loha import LoHaAdapter
from comfy.weight_adapter.lokr import LoKrAdapter
from comfy.weight_adapter.lora import LoRAAdapter
from comfy.weight_adapter.oft import BOFTAdapter, OFTAdapter

__all__ = [
    "BOFTAdapter",
    "BypassForwardHook",
    "GLoRAAdapter",
    "LoHaAdapter",
    "LoKrAdapter",
    "LoRAAdapter",
    "OFTAdapter",
    "WeightAdapterBase",
    "adapter_maps",
    "adapters",
    "create_bypass_injections_from_patches",
]

adapters: list[type[WeightAdapterBase]] = [LoRAAdapter, LoHaAdapter, LoKrAdapter, GLoRAAdapter, OFTAdapter, BOFTAdapter]
adapter_maps: dict[str, type[WeightAdapterBase]] = {"LoRA": LoRAAdapter, "LoHa": LoHaAdapter, "LoKr": LoKrAdapter, "OFT": OFTAdapter}
