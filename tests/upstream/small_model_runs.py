"""Samples, encodes and decodes with small models of the ``comfy`` package that Python finds, and saves the results.

    python small_model_runs.py CASES_FILE RESULTS_FILE

It uses only what ComfyUI has, so that it runs with a checkout of it as well. From files ComfyUI knows the families' real sizes alone;
so models are made here from the settings that a file would give. CASES_FILE holds {name: case}: a dict whose ``run`` names a function
below and whose other members are its arguments. The results are tensors, or lists of them, by name.
"""

import functools
import importlib.util
import sys
import types

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.model_patcher  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.supported_models  # noqa: E402


def sampled(
    family,
    unet_config,
    tensors,
    positive,
    negative,
    latent,
    noise,
    lora=None,
    cfg=2.5,
    steps=3,
    ours_alone=(),
    control=None,
    noise_mask=None,
):
    """The last latent of a model of *family* (a name in ``supported_models``); ComfyUI's *unet_config* has no members *ours_alone*.

    *control*: the tensors of a ControlNet, its hint, and what else :func:`controlled` takes.
    """
    is_ours = importlib.util.find_spec("comfy.dit") is not None
    given = {name: value for name, value in unet_config.items() if is_ours or name not in ours_alone}
    if not is_ours and "llm_adapter_config" in unet_config:
        import comfy.ldm.anima.model as anima

        sizes = {name: value for name, value in unet_config["llm_adapter_config"].items() if name != "vocabulary"}
        anima.LLMAdapter = functools.partial(anima.LLMAdapter, **sizes)
    kind = getattr(comfy.supported_models, family)
    fixed = getattr(kind, "unet_extra_config", {})  # ComfyUI's real sizes, which would come before those that are given
    kind.unet_extra_config = {name: value for name, value in fixed.items() if name not in given}
    config = kind(given)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(tensors, "", device=torch.device("cpu"))
    model.load_model_weights(dict(tensors), "")
    cpu = torch.device("cpu")
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)
    if lora is not None:
        patcher, _ = comfy.sd.load_lora_for_models(patcher, None, dict(lora), 0.8, 0)
    controls = {} if control is None else {"control": controlled(*control), "control_apply_to_uncond": True}
    sides = [[(text, {**seen(values), **controls}) for text, values in side] for side in (positive, negative)]
    return comfy.sample.sample(
        patcher, noise, steps, cfg, "euler", "simple", *sides, latent, noise_mask=noise_mask, disable_pbar=True, seed=1
    )


class Averages:
    """Stands for an autoencoder of sixteen channels, whose latents may have a frame."""

    def __init__(self, frames=False):
        self.frames = frames

    def spacial_compression_encode(self):
        return 8

    def encode(self, pictures):
        means = torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), 8).mean(dim=1, keepdim=True)
        latent = means * torch.linspace(-1, 1, 16).reshape(1, 16, 1, 1)
        return latent.unsqueeze(2) if self.frames else latent


def controlled(tensors, hint, sizes=None, mask=None):
    """The control of a file with *tensors*, for the picture *hint*, filled in where *mask* is 1.

    For Qwen-Image *sizes* are those that ComfyUI takes as given.
    """
    import comfy.controlnet

    load = getattr(comfy.controlnet, "load_controlnet_state_dict", None)
    if importlib.util.find_spec("comfy.dit") is None:
        if sizes is None:
            load = comfy.controlnet.load_controlnet_sd35
        else:
            import comfy.ldm.qwen_image.controlnet as networks

            networks.QwenImageControlNetModel = functools.partial(networks.QwenImageControlNetModel, **sizes)
    control = load(dict(tensors))
    if mask is None:
        return control.set_cond_hint(hint, 0.7, (0.0, 0.9), vae=Averages(sizes is not None))
    from comfy_extras.nodes_controlnet import ControlNetInpaintingAliMamaApply as Node

    told = [[hint, {}]]
    found = Node.execute(told, told, control, Averages(True), hint.movedim(1, -1), mask, 0.7, 0.0, 0.9)
    return (found.args if hasattr(found, "args") else found.result)[0][0][1]["control"]


def seen(values):
    """*values* of a conditioning, with what an image encoder saw (tensor and picture size, or embedding, strength and noise) as its output
    object, and GLIGEN's tensors as a patcher."""
    if "unclip_conditioning" in values:
        told = [
            {"clip_vision_output": types.SimpleNamespace(image_embeds=embeds), "strength": strength, "noise_augmentation": noise}
            for embeds, strength, noise in values["unclip_conditioning"]
        ]
        values = {**values, "unclip_conditioning": told}
    if "gligen" in values:
        from comfy.gligen import load_gligen

        tensors, boxes = values["gligen"]
        cpu = torch.device("cpu")
        patcher = comfy.model_patcher.ModelPatcher(load_gligen(dict(tensors)), load_device=cpu, offload_device=cpu)
        values = {**values, "gligen": ("position", patcher, boxes)}
    sights = values.get("clip_vision_outputs")
    if sights is None:
        return values
    outputs = [types.SimpleNamespace(last_hidden_state=state, image_sizes=[size]) for state, size in sights]
    return {**values, "clip_vision_outputs": outputs}


def encoded(module, name, part, sizes, eyes, tensors, tokens, arguments=None, beside=None, extra=None, key=None):
    """The states that the text encoder *name* of ``comfy.text_encoders.MODULE`` gives for each of *tokens*, and their mask if any.

    *key* is what its tokens are called, if not *part*. With *arguments*, *name* is called with them, and makes the class. *beside* are
    chunks for its other tokenizers. *extra* names what of its extras is meant in place of the states.
    """
    texts = getattr(__import__(f"comfy.text_encoders.{module}").text_encoders, module)
    options = {f"{part}_model_config": own_sizes(part, sizes, eyes, tensors)}
    kind = getattr(texts, name) if arguments is None else getattr(texts, name)(**arguments)
    encoder = kind(device="cpu", dtype=torch.float32, model_options=options)
    encoder.load_sd(dict(tensors))
    found = []
    for chunk in tokens:
        states, _, *extras = encoder.encode_token_weights({key or part: [[(token, 1.0) for token in chunk]], **(beside or {})})
        if extra is not None:
            states = extras[0][extra]
        mask = (extras[0] if extras else {}).get("attention_mask")
        found += [states] if mask is None else [states, mask.float()]
    return found


def own_sizes(part, sizes, eyes, tensors):
    """*sizes* as this ``comfy`` takes them; ComfyUI's eyes are made small on the way."""
    try:
        from comfy.text.kinds import KINDS
    except ModuleNotFoundError:
        from comfy.text_encoders import qwen_vl

        if part.startswith("qwen3vl"):
            from comfy.text_encoders import qwen3vl

            qwen3vl.QWEN3VL_VISION[part] = {**qwen3vl.QWEN3VL_VISION[part], **eyes}
            qwen3vl.QWEN3VL_VISION_COMMON = {name: value for name, value in qwen3vl.QWEN3VL_VISION_COMMON.items() if name not in eyes}
            return sizes
        if part.startswith("qwen35"):
            from comfy.text_encoders import qwen35

            qwen35.QWEN35_MODELS[part] = {**qwen35.QWEN35_MODELS[part], "vision": eyes}
            return sizes
        network = qwen_vl.Qwen2VLVisionTransformer
        if not isinstance(network, functools.partial):
            qwen_vl.Qwen2VLVisionTransformer = lambda hidden_size, **given: network(**{**given, **eyes})
        return sizes
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    return next(config for kind in KINDS if kind.part == part and (config := kind.read(shapes, None)) is not None)


def autoencoded(tensors, pictures, latents, mage=None):
    """Latents of *pictures*, and pictures of *latents*, whole and in tiles. *mage*: the sizes of ComfyUI's halves of Mage-Flow's."""
    if mage is not None and importlib.util.find_spec("comfy.dit") is None:
        import comfy.ldm.mage_flow.vae as vae_module

        for name, sizes in mage.items():
            setattr(vae_module, name, functools.partial(getattr(vae_module, name), **sizes))
    vae = comfy.sd.VAE(sd=dict(tensors))
    found = [vae.encode(one) for one in pictures] + [vae.decode(one) for one in latents]
    return [*found, vae.decode_tiled(latents[0], tile_x=6, tile_y=6, overlap=2, tile_t=16, overlap_t=2)]


def main(cases_file, results_file):
    """Run all and save."""
    runs = {function.__name__: function for function in (sampled, encoded, autoencoded)}
    with torch.inference_mode():
        cases = torch.load(cases_file)
        torch.save({name: runs[case.pop("run")](**case) for name, case in cases.items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
