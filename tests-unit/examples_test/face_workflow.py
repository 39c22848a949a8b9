"""The example pack of face adapters on small models: files, nodes, and the workflow that the issue of patched models is about."""

import contextlib
import functools
import importlib
import pathlib
import sys

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from residency_models import arguments, management
from safetensors.torch import save_file
from small_models import folder, small_checkpoint

import comfy.controlnet
import comfy.lora
import comfy.sample
import comfy.sd
from comfy.loading.lora_files import load_lora_file
from comfy.patching.patched_models import forget
from comfy.ram_model_cache.host_memory import HostMemory, MemoryView
from comfy.residency.model_cache import make_ram_cache

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
GIB = 1024**3


@functools.cache
def pack():
    """The example's module ``nodes``, and the one that writes weights."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module("face_adapter.nodes"), importlib.import_module("face_adapter.write_random_weights")
    finally:
        sys.path.remove(str(EXAMPLES))


@contextlib.contextmanager
def workplace(vram_bytes=None, cache_mb=512):
    """A manager with a RAM model cache, nothing remembered; gives it, and an empty model table."""
    memory = HostMemory(system=lambda: MemoryView(64 * GIB, 32 * GIB))
    made = functools.partial(make_ram_cache, arguments(ram_model_cache_mb=cache_mb))
    forget()
    with management(vram_bytes, cache=made, memory=memory) as manager:
        yield manager
        manager.unload_all_models()
        forget()
        manager.ram_cache.close()


@functools.cache
def files(family="sd15"):
    """Paths of an adapter, a ControlNet and two LoRAs that fit the small checkpoint of *family*."""
    model = comfy.sd.load_checkpoint_guess_config(small_checkpoint(family), output_vae=False, output_clip=False)[0]
    config = model.model.model_config.unet_config
    paths = {name: f"{folder().name}/{name}-{family}.safetensors" for name in ("adapter", "control", "lora1", "lora2")}
    save_file(pack()[1].random_adapter(config, width=64, depth=1), paths["adapter"])
    save_file(_control(config), paths["control"])
    for seed in (1, 2):
        save_file(_lora(model, seed), paths[f"lora{seed}"])
    return paths


def _control(config):
    levels = len(config["channel_mult"])
    has_attention = [config["transformer_depth"][2 * level] > 0 for level in range(levels)]
    network = ControlNetModel(
        block_out_channels=tuple(config["model_channels"] * multiple for multiple in config["channel_mult"]),
        layers_per_block=2,
        cross_attention_dim=config["context_dim"],
        norm_num_groups=32,
        attention_head_dim=8,
        down_block_types=tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in has_attention),
    ).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(tensor.shape, generator=generator) * (tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1)
        for name, tensor in network.state_dict().items()
    }


def _lora(model, seed):
    generator, tensors = torch.Generator().manual_seed(seed), {}
    for name, key in comfy.lora.model_lora_keys_unet(model.model).items():
        weight = model.weights.get(key) if str(name).startswith("lora_unet_down_blocks") else None
        if weight is not None and weight.ndim == 2:
            tensors[f"{name}.lora_up.weight"] = 0.05 * torch.randn(weight.shape[0], 2, generator=generator)
            tensors[f"{name}.lora_down.weight"] = 0.05 * torch.randn(2, weight.shape[1], generator=generator)
    return tensors


class Workflow:
    """base -> LoRA twice -> face adapter -> sampler, as nodes make it: everything but what is handed in is asked for anew in each run."""

    def __init__(self, family="sd15"):
        self.paths, self.family = files(family), family
        self.image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(4))
        self.nodes = pack()[0]

    def patched(self, text, weight=0.8, part=(0.0, 1.0)):
        """The model and both sides of conditioning."""
        model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(small_checkpoint(self.family), output_vae=False)
        for number, strength in ((1, 0.7), (2, 0.4)):
            lora = load_lora_file(self.paths[f"lora{number}"])
            model, clip = comfy.sd.load_lora_for_models(model, clip, lora, strength, strength)
        control = comfy.controlnet.load_controlnet(self.paths["control"])
        adapter = self.nodes.LoadedAdapter.load(self.paths["adapter"])
        sides = [clip.encode_from_tokens_scheduled(clip.tokenize(words)) for words in (text, "")]
        return self.nodes.ApplyFaceAdapter().apply(adapter, control, self.image, model, *sides, weight, *part)

    def run(self, text="a portrait", seed=1, steps=2, **options):
        """The latent of one run."""
        with torch.inference_mode():
            model, positive, negative = self.patched(text, **options)
            latent = torch.zeros(1, 4, 8, 8)
            noise = comfy.sample.prepare_noise(latent, seed)
            return comfy.sample.sample(
                model, noise, steps, 4.0, "euler", "normal", positive, negative, latent, seed=seed, disable_pbar=True
            )
