"""Samples with video models of the ``comfy`` package that Python finds, and saves the latents.

    python video_model_runs.py CASES_FILE RESULTS_FILE

Cases are as in ``transformer_runs.py``; besides, ``lora`` holds the tensors of one, ``shift`` is that of ModelSamplingSD3, ``noise_mask``
says what is sampled, and a ``vision`` in a conditioning is what an image encoder saw before its last layer, ``sight`` after it. A case with
``vae`` (tensors of an autoencoder) encodes ``pictures`` and decodes ``latents``, whole and in tiles. A case with ``qwen`` and ``byt5``
(tensors, with ``sizes``) encodes ``tokens`` of both with HunyuanVideo 1.5's text encoder, and says which tokens ByT5's tokenizer makes of
``text``.
"""

import sys

import torch

from comfy.cli_args import args

args.cpu = True  # before the next import: ComfyUI looks for devices there

import comfy.clip_vision  # noqa: E402
import comfy.model_sampling  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402


def prepared(conditioning):
    """The conditioning, with what was seen as the object that ComfyUI passes."""
    values, options = conditioning[0]
    options, output = dict(options), comfy.clip_vision.Output()
    for name, attribute in (("vision", "penultimate_hidden_states"), ("sight", "last_hidden_state")):
        if name in options:
            setattr(output, attribute, options.pop(name))
            options["clip_vision_output"] = output
    return [[values, options]]


def shifted(model, shift):
    """*model* with another shift, as the node makes it."""

    class Sampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    sampling = Sampling(model.model.model_config)
    sampling.set_parameters(shift=shift, multiplier=1000)
    model = model.clone()
    model.add_object_patch("model_sampling", sampling)
    return model


def small_autoencoders(tensors):
    """Let ComfyUI, which knows the real sizes alone, make the autoencoder of Wan 2.2, HunyuanVideo, SVD or Cosmos of those of *tensors*."""
    import comfy.ldm.wan.vae2_2 as networks

    if not hasattr(networks, "CausalConv3d"):  # this project has other classes
        return
    if "decoder.unpatcher3d.wavelets" in tensors:
        import comfy.ldm.cosmos.vae as videos

        whole, width = videos.CausalContinuousVideoTokenizer, len(tensors["encoder.conv_in.0.conv3d.bias"])
        videos.CausalContinuousVideoTokenizer = lambda **given: whole(**{**given, "channels": width})
        return
    if "decoder.head.0.gamma" in tensors:
        network, dec_dim = networks.WanVAE, len(tensors["decoder.head.0.gamma"])
        networks.WanVAE = lambda dim, **given: network(dim=len(tensors["encoder.conv1.bias"]), dec_dim=dec_dim, **given)
        return
    if "decoder.mid.block_1.mix_factor" in tensors:
        engine, widths = comfy.sd.AutoencodingEngine, [len(tensors[f"encoder.down.{level}.block.0.conv1.bias"]) for level in range(4)]
        sizes = {"ch": widths[0], "ch_mult": [width // widths[0] for width in widths]}
        smaller = {"target": lambda half: half["target"], "params": lambda half: {**half["params"], **sizes}}
        comfy.sd.AutoencodingEngine = lambda regularizer_config, **halves: engine(
            regularizer_config=regularizer_config,
            **{name: {key: change(half) for key, change in smaller.items()} for name, half in halves.items()},
        )
        return
    if "post_quant_conv.weight" in tensors:
        whole, widths = comfy.sd.AutoencoderKL, [len(tensors[f"encoder.down.{level}.block.0.conv1.conv.bias"]) for level in range(4)]
        sizes = {"ch": widths[0], "ch_mult": [width // widths[0] for width in widths]}
        comfy.sd.AutoencoderKL = lambda ddconfig, embed_dim: whole(ddconfig={**ddconfig, **sizes}, embed_dim=embed_dim)
        return
    import comfy.ldm.hunyuan_video.vae_refiner as refiner

    widths = [len(tensors[f"encoder.down.{level}.block.0.norm1.gamma"]) for level in range(5)]
    for name in ("Encoder", "Decoder"):
        half = getattr(refiner, name)
        setattr(refiner, name, lambda block_out_channels, half=half, **given: half(block_out_channels=widths, **given))


def small_faces(file):
    """Let ComfyUI, which knows the published sizes alone, make what looks at pictures of faces of those in the network's *file*."""
    from safetensors import safe_open

    import comfy.ldm.wan.model_animate as networks

    if "EqualConv2d" not in vars(networks):  # this project reads them off the file
        return
    layers = "motion_encoder.enc.net_app.convs."
    with safe_open(file, "pt") as found:
        sizes = {name: found.get_slice(name).get_shape() for name in found.keys() if name.startswith(layers)}  # noqa: SIM118 - it is no dict
    widths = [sizes[f"{layers}0.0.weight"][0]] + [sizes[f"{layers}{number}.conv2.1.weight"][0] for number in range(1, 8)]

    class Pictures(networks.EncoderApp):
        def __init__(self, w_dim=512, **kept):
            torch.nn.Module.__init__(self)
            convs = [networks.ConvLayer(3, widths[0], 1, **kept)]
            convs += [networks.ResBlock(wide, narrow, **kept) for wide, narrow in zip(widths, widths[1:], strict=False)]
            convs.append(networks.EqualConv2d(widths[-1], w_dim, 4, bias=False, **kept))
            self.convs = torch.nn.ModuleList(convs)

    networks.EncoderApp = Pictures


def autoencoded(case):
    """Latents of pictures, then pictures of latents."""
    small_autoencoders(case["vae"])
    vae = comfy.sd.VAE(sd=dict(case["vae"]))
    found = [vae.encode(one) for one in case["pictures"]] + [vae.decode(one) for one in case["latents"]]
    return [*found, vae.decode_tiled(case["latents"][0], tile_x=4, tile_y=4, overlap=case.get("overlap", 2), tile_t=16, overlap_t=2)]


def encoded(case):
    """The states of Qwen2.5-VL and of ByT5, and the tokens that stand for the text to be written."""
    from comfy.text_encoders import hunyuan_image

    sizes = dict(case["sizes"])
    try:
        from comfy.families.t5_text_config import read_t5_config
        from comfy.text.qwen.sizes import read_qwen_config

        shapes = [{name: tuple(value.shape) for name, value in case[part].items()} for part in ("qwen", "byt5")]
        sizes = {"qwen25_7b_model_config": read_qwen_config(shapes[0]), "byt5_small_model_config": read_t5_config(shapes[1])}
    except ModuleNotFoundError:  # ComfyUI takes transformers' settings, and ByT5's under no name
        sizes = {"qwen25_7b_model_config": sizes["qwen"], "_model_config": sizes["byt5"]}
    model = hunyuan_image.HunyuanImageTEModel(device="cpu", dtype=torch.float32, model_options=sizes)
    for part in ("qwen", "byt5"):
        model.load_sd(dict(case[part]))
    tokens = {part: [[(token, 1.0) for token in chunk]] for part, chunk in case["tokens"].items()}
    states, _, extra = model.encode_token_weights(tokens)
    written = hunyuan_image.ByT5SmallTokenizer().tokenize_with_weights(case["text"])
    return [states, extra["conditioning_byt5small"], torch.tensor([[token[0] for token in written[0]]], dtype=torch.float32)]


def in_windows(model, **changed):
    """*model* sampling in windows, as the node makes it."""
    from comfy_extras import nodes_context_windows as nodes

    node = getattr(nodes, "ContextWindowsManualNode", None) or nodes.ContextWindowsManual
    settings = {"context_length": 4, "context_overlap": 2, "context_schedule": "standard_static", "context_stride": 1}
    settings |= {"closed_loop": False, "fuse_method": "pyramid", "dim": 2, "freenoise": False}
    result = node.execute(model, **{**settings, **changed})
    return result.args[0]


def some_frames_at_a_time(model, case):
    """The latent of a video made some frames at a time, beginning with ``begin`` if that is there."""
    if "begin" in case:
        model = model.clone()
        model.model_options["transformer_options"]["ar_config"] = {"initial_latent": case["begin"]}
    sampler = comfy.samplers.ksampler("ar_video", {"num_frame_per_block": case["frames_at_a_time"]})
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", case.get("steps", 3))
    texts = prepared(case["positive"]), prepared(case["negative"])
    return comfy.sample.sample_custom(model, case["noise"], 1.0, sampler, sigmas, *texts, case["latent"], disable_pbar=True, seed=1)


def run(case):
    """The last latent of *case*."""
    if "vae" in case:
        return autoencoded(case)
    if "qwen" in case:
        return encoded(case)
    if "animate-" in case["model"]:
        small_faces(case["model"])
    model = comfy.sd.load_diffusion_model(case["model"], model_options=case.get("model_options", {}))
    if "lora" in case:
        model, _ = comfy.sd.load_lora_for_models(model, None, dict(case["lora"]), 0.8, 0.0)
    if "shift" in case:
        model = shifted(model, case["shift"])
    if "cache" in case:
        from comfy_extras.nodes_wan import WanAnimate2Cache

        model = WanAnimate2Cache.execute(model, "cpu", case["cache"]).args[0]
    if "windows" in case:
        model = in_windows(model, **case["windows"])
    if "frames_at_a_time" in case:
        return some_frames_at_a_time(model, case)
    positive = prepared(case["positive"])
    if "late" in case:  # what holds in the second half of the sampling
        positive[0][1]["end_percent"] = 0.5
        positive += [[part[0], {**part[1], "start_percent": 0.5}] for part in prepared([[case["positive"][0][0], case["late"]]])]
    return comfy.sample.sample(
        model,
        case["noise"],
        case.get("steps", 2),
        case["cfg"],
        case.get("sampler", "euler"),
        "simple",
        positive,
        prepared(case["negative"]),
        case["latent"],
        noise_mask=case.get("noise_mask"),
        disable_pbar=True,
        seed=1,
    )


def main(cases_file, results_file):
    """Run all and save."""
    with torch.inference_mode():
        torch.save({name: run(case) for name, case in torch.load(cases_file).items()}, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
