"""Runs LTX's nodes of the ``comfy_extras`` that Python finds over small models, and saves what they give.

    python ltx_node_runs.py CASES_FILE RESULTS_FILE

CASES_FILE holds {"model": a file of LTX 2's network, "upsamplers": files, "vae" and "sound": (tensors, metadata), "text": a conditioning,
"projections": tensors by kind}. The results are lists of tensors by name.
"""

import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.samplers  # noqa: E402
import comfy.sd  # noqa: E402
from comfy.nested_tensor import NestedTensor  # noqa: E402
from comfy_extras import nodes_hunyuan, nodes_lt, nodes_lt_audio, nodes_lt_upsampler  # noqa: E402


def numbers(*shape, seed=1):
    """Seeded values in 0…1."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def tensors_of(value):
    """The tensors in what a node gives, in order."""
    if torch.is_tensor(value):
        return [value]
    if isinstance(value, NestedTensor):
        return value.unbind()
    if isinstance(value, dict):
        return [tensor for key in sorted(value) for tensor in tensors_of(value[key])]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_of(item)]
    return [torch.tensor(float(value))] if isinstance(value, int | float) else []


def guided(vae, text):
    """What guides of every kind make of a latent."""
    add, found = nodes_lt.LTXVAddGuide.execute, {}
    latent = {"samples": numbers(1, 128, 4, 2, 4), "noise_mask": numbers(1, 1, 4, 1, 1, seed=2)}
    clip, mask, smaller = numbers(20, 64, 128, 3, seed=3), numbers(1, 64, 128, seed=4), {"reference_downscale_factor": 2}
    ways = {
        "first": (clip[:1], 0, 1.0),
        "last": (clip[:1], -1, 0.7),
        "middle": (clip[:1], 11, 0.7, mask),
        "video": (clip, 0, 1.5),
        "later video": (clip[:17], 11, 0.4),
        "from the end": (clip[:9], -12, 0.4, mask),
        "smaller": (clip[:9], 0, 0.9, None, smaller),
    }
    for name, (image, frame, strength, *more) in ways.items():
        once = add(text, text, vae, latent, image, frame, strength, *more).args
        twice = add(once[0], once[1], vae, once[2], clip[:1], 5, 0.5).args
        cropped = nodes_lt.LTXVCropGuides.execute(*twice).args
        found[f"guide, {name}"] = [*tensors_of(once[2]), *tensors_of(twice), *tensors_of(cropped[2])]
    return found


def begun(vae, text):
    """What pictures make of a latent, and the small nodes."""
    latent, picture = {"samples": numbers(1, 128, 4, 2, 4)}, numbers(1, 50, 70, 3, seed=3)
    video = {"samples": numbers(1, 128, 4, 2, 4, seed=5), "noise_mask": numbers(1, 1, 4, 1, 1)}
    sound = {"samples": numbers(1, 8, 6, 16), "noise_mask": numbers(1, 1, 6, 16), "type": "audio"}
    joined = nodes_lt.LTXVConcatAVLatent.execute(video, sound).args[0]
    longer, shorter = ({"samples": numbers(1, 8, count, 16, seed=6), "noise_mask": numbers(1, 1, count, 16)} for count in (9, 4))
    return {
        "in place": tensors_of(nodes_lt.LTXVImgToVideoInplace.execute(vae, picture, latent, 0.8).args),
        "to video": tensors_of(nodes_lt.LTXVImgToVideo.execute(text, text, picture, vae, 128, 64, 25, 2, 0.8).args[2]),
        "compressed": tensors_of(nodes_lt.LTXVPreprocess.execute(picture, 35).args),
        "sigmas": tensors_of(nodes_lt.LTXVScheduler.execute(6, 2.05, 0.95, True, 0.1, latent).args),
        "plain sigmas": tensors_of(nodes_lt.LTXVScheduler.execute(6, 2.05, 0.95, False, 0.1).args),
        "joined": tensors_of(joined),
        "apart": tensors_of(nodes_lt.LTXVSeparateAVLatent.execute(joined).args),
        "longer sound": tensors_of(nodes_lt.LTXVConcatAVLatent.execute(joined, longer).args),
        "shorter sound": tensors_of(nodes_lt.LTXVConcatAVLatent.execute(joined, shorter).args),
    }


def sampled(model, sound_vae, text):
    """Latents of every kind of guidance, over the sigmas of LTX's scheduler."""
    latent = NestedTensor((torch.zeros(1, 128, 2, 2, 2), torch.zeros(1, 8, 5, 16)))
    noise = NestedTensor((numbers(1, 128, 2, 2, 2, seed=7) * 2 - 1, numbers(1, 8, 5, 16, seed=8) * 2 - 1))
    other = [[numbers(*text[0][0].shape, seed=9), dict(text[0][1])]]
    sigmas = nodes_lt.LTXVScheduler.execute(3, 2.05, 0.95, True, 0.1).args[0]
    voice = {"waveform": numbers(1, 2, 22050, seed=10) - 0.5, "sample_rate": 22050}
    heard = nodes_lt.LTXVReferenceAudio.execute(model, text, other, voice, sound_vae, 2.0, 0.0, 0.9).args
    shifted = nodes_lt.ModelSamplingLTXV.execute(model, 2.05, 0.95, {"samples": latent.unbind()[0]}).args[0]
    ways = {
        "two scales": (model, text, other, (2.0, 4.0)),
        "one scale": (model, text, other, (2.0, 2.0)),
        "blocks passing": (nodes_lt.LTXVSpatioTemporalGuidance.execute(model, 1.5, "0, 1", 0.0, 0.9).args[0], text, other, (2.0, 4.0)),
        "coupled": (nodes_lt.LTXVModalityGuidance.execute(model, 2.5, 0.0, 1.0).args[0], text, other, (1.0, 1.0)),
        "voice": (*heard, (2.0, 2.0)),
        "shifted": (shifted, text, other, (2.0, 2.0)),
    }
    found = {}
    for name, (patcher, positive, negative, scales) in ways.items():
        guider = nodes_lt.LTXVDualCFGGuider.execute(patcher, positive, negative, *scales).args[0]
        made = guider.sample(noise, latent, comfy.samplers.sampler_object("euler_ancestral"), sigmas, disable_pbar=True, seed=3)
        found[f"sampled, {name}"] = made.unbind()
    found["shift"] = [shifted.get_model_object("model_sampling").sigmas[::1000]]
    return found


class Reads:
    """Stands for Gemma: gives the states."""

    operations = None

    def __init__(self, states):
        self.states = states

    def encode_token_weights(self, pairs):
        return self.states, None, {"attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1]])}


def projected(tensors, states):
    """The text that a projection makes of *states*."""
    from comfy.text_encoders import lt

    try:
        from comfy.families.weight_source import StateDictSource
        from comfy.text.kinds import recognise
        from comfy.text_encoders.ltxav import LTXAVTEModel, projection_layers
    except ModuleNotFoundError:
        import comfy.ops

        model = object.__new__(lt.LTXAVTEModel)
        torch.nn.Module.__init__(model)
        found = lt.sd_detect([tensors])
        single, inputs = found["text_projection_type"] == "single_linear", states.shape[1] * states.shape[3]
        model.text_projection_type, model.text_encoder_key, model.compat_mode = found["text_projection_type"], "gemma3_12b", False
        model.execution_device = torch.device("cpu")
        widths = [found["video_projection_dim"]] + ([] if single else [found["audio_projection_dim"]])
        layer = (
            torch.nn.Linear(inputs, *widths, bias=False)
            if single
            else lt.DualLinearProjection(inputs, *widths, operations=comfy.ops.manual_cast)
        )
        prefix = "text_embedding_projection." + ("aggregate_embed." if single else "")
        layer.load_state_dict({name.removeprefix(prefix): value for name, value in tensors.items()})
        model.text_embedding_projection = layer
    else:
        part = recognise(StateDictSource(dict(tensors)))
        model = object.__new__(LTXAVTEModel)
        torch.nn.Module.__init__(model)
        model.config, model.execution_device = part.config, None
        for name, module in projection_layers(part.config, torch.float32).items():
            setattr(model, name, module)
        model.load_projection(part.source)
    object.__setattr__(model, "gemma3_12b", Reads(states))
    return [model.encode_token_weights({"gemma3_12b": []})[0]]


def run(cases):
    """Everything."""
    vae, sound_vae = (comfy.sd.VAE(sd=dict(cases[name][0]), metadata=cases[name][1]) for name in ("vae", "sound"))
    model = comfy.sd.load_diffusion_model(cases["model"])
    found = {**guided(vae, cases["text"]), **begun(vae, cases["text"]), **sampled(model, sound_vae, cases["text"])}
    for path in cases["upsamplers"]:
        import folder_paths

        folder, _, name = path.rpartition("/")
        folder_paths.add_model_folder_path("latent_upscale_models", folder)
        larger = nodes_hunyuan.LatentUpscaleModelLoader.execute(name).args[0]
        given = {"samples": numbers(1, 128, 3, 4, 6, seed=11), "noise_mask": numbers(1, 1, 3, 1, 1)}
        found[f"larger, {name}"] = tensors_of(nodes_lt_upsampler.LTXVLatentUpsampler.execute(given, larger, vae).args)
    empty = nodes_lt_audio.LTXVEmptyLatentAudio.execute(97, 25.0, 2, sound_vae).args[0]
    waveform = nodes_lt_audio.LTXVAudioVAEDecode.execute({"samples": numbers(1, 8, 6, 16)}, sound_vae).args[0]
    sound = {"waveform": numbers(1, 2, 20000, seed=12) - 0.5, "sample_rate": 22050}
    found["sound"] = [
        *tensors_of(empty),
        *tensors_of(waveform),
        *tensors_of(nodes_lt_audio.LTXVAudioVAEEncode.execute(sound, sound_vae).args),
    ]
    states = numbers(1, 49, 6, 64, seed=13) * 3
    return found | {f"projected, {kind}": projected(tensors, states) for kind, tensors in cases["projections"].items()}


def main(cases_file, results_file):
    """Run all and save."""
    with torch.inference_mode():
        torch.save(run(torch.load(cases_file)), results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
