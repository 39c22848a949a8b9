from types import SimpleNamespace

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

import comfy.latent_formats
import comfy.utils
import folder_paths
import latent_preview
from comfy.cli_args import LatentPreviewMethod, args
from comfy.progress_bar import hook_state
from comfy.taesd.taesd import TAESD


@pytest.fixture
def method(monkeypatch):
    """Sets the preview method of the command line."""

    def choose(value):
        monkeypatch.setattr(args, "preview_method", value)
        monkeypatch.setattr(latent_preview, "_method_choice", latent_preview._MethodChoice())

    return choose


@pytest.fixture
def reports(monkeypatch):
    """Collects what progress bars report."""
    collected = []
    monkeypatch.setattr(hook_state, "hook", lambda value, total, preview, node_id: collected.append((value, total, preview)))
    return collected


def model(latent_format=None):
    latent_format = latent_format or comfy.latent_formats.SD15()
    return SimpleNamespace(load_device=torch.device("cpu"), model=SimpleNamespace(latent_format=latent_format))


def test_steps_are_reported_without_previews(method, reports):
    method(LatentPreviewMethod.NoPreviews)
    kept = {}
    callback = latent_preview.prepare_callback(model(), 2, kept)
    callback(0, "first", "latent", 2)
    callback(1, "second", "latent", 2)
    assert reports == [(1, 2, None), (2, 2, None)]
    assert kept == {"x0": "second"}


@pytest.mark.parametrize("choice", [LatentPreviewMethod.Auto, LatentPreviewMethod.Latent2RGB])
def test_rough_previews_map_channels_to_colours(method, reports, choice):
    method(choice)
    latent = torch.zeros(2, 4, 3, 5)
    latent[0, 1] = 1.0
    latent_preview.prepare_callback(model(), 1)(0, latent, latent, 1)
    kind, image, side = reports[0][2]
    assert (kind, image.size, side) == ("JPEG", (5, 3), args.preview_size)
    expected = [int((factor + 1) / 2 * 255) for factor in comfy.latent_formats.SD15().latent_rgb_factors[1]]
    assert numpy.asarray(image)[0, 0].tolist() == expected


def test_rough_previews_add_the_formats_bias():
    fmt = comfy.latent_formats.SDXL()
    made = latent_preview.Latent2RGBPreviewer(fmt.latent_rgb_factors, fmt.latent_rgb_factors_bias)
    image = made.decode_latent_to_preview(torch.zeros(1, 4, 1, 1))
    assert numpy.asarray(image)[0, 0].tolist() == [int((bias + 1) / 2 * 255) for bias in fmt.latent_rgb_factors_bias]


def test_formats_without_factors_have_no_preview(method):
    method(LatentPreviewMethod.Auto)
    assert latent_preview.get_previewer("cpu", comfy.latent_formats.LatentFormat()) is None


def decoder_file(path):
    """A decoder with random weights under the published names."""
    torch.manual_seed(0)
    decoder = TAESD().taesd_decoder
    published = {}
    for name, tensor in decoder.state_dict().items():
        _, number, rest = name.split(".", 2)
        published[f"{int(number) + 1}.{rest}"] = tensor
    save_file(published, path)
    return decoder


def test_tiny_autoencoders_are_loaded_from_their_file(method, tmp_path, monkeypatch, reports):
    method(LatentPreviewMethod.TAESD)
    decoder = decoder_file(tmp_path / "taesd_decoder.safetensors")
    monkeypatch.setattr(folder_paths, "get_filename_list", lambda folder: ["other.pth", "taesd_decoder.safetensors"])
    monkeypatch.setattr(folder_paths, "get_full_path", lambda folder, name: str(tmp_path / name))
    latent = torch.randn(1, 4, 2, 3)
    with torch.no_grad():
        latent_preview.prepare_callback(model(), 1)(0, latent, latent, 1)
        expected = decoder(latent)[0].movedim(0, 2)
    image = reports[0][2][1]
    assert image.size == (24, 16)
    assert numpy.array_equal(numpy.asarray(image), (((expected + 1) / 2).clamp(0, 1) * 255).to(torch.uint8).numpy())


def test_a_damaged_decoder_means_rough_previews_and_extra_tensors_are_named(method, tmp_path, monkeypatch, caplog):
    method(LatentPreviewMethod.TAESD)
    path = tmp_path / "taesd_decoder.safetensors"
    decoder_file(path)
    monkeypatch.setattr(folder_paths, "get_filename_list", lambda folder: [path.name])
    monkeypatch.setattr(folder_paths, "get_full_path", lambda folder, name: str(path))
    whole = {name: tensor.clone() for name, tensor in load_file(path).items()}
    first = min(whole)
    others = {key: value for key, value in whole.items() if key != first}
    for damaged in (others, others | {first: torch.zeros(3)}, others | {"odd": torch.zeros(1)}):
        save_file(damaged, path)
        caplog.clear()
        assert isinstance(latent_preview.get_previewer("cpu", comfy.latent_formats.SD15()), latent_preview.Latent2RGBPreviewer)
        assert str(path) in caplog.text
    save_file(whole | {"odd.layer": torch.zeros(1)}, path)
    caplog.clear()
    assert isinstance(latent_preview.get_previewer("cpu", comfy.latent_formats.SD15()), latent_preview.TAESDPreviewerImpl)
    assert f"{path}: 1 tensors are not used" in caplog.text and "odd.layer" in caplog.text


def test_a_missing_decoder_means_rough_previews(method, monkeypatch, caplog):
    method(LatentPreviewMethod.TAESD)
    monkeypatch.setattr(folder_paths, "get_filename_list", lambda folder: [])
    assert isinstance(latent_preview.get_previewer("cpu", comfy.latent_formats.SD15()), latent_preview.Latent2RGBPreviewer)
    assert "models/vae_approx/taesd_decoder" in caplog.text


def test_tiny_autoencoders_encode_what_they_decode_from():
    tiny = TAESD()
    with torch.no_grad():
        assert tiny.encode(torch.zeros(1, 3, 16, 24)).shape == (1, 4, 2, 3)
    latent = torch.tensor([-3.0, 0.0, 3.0])
    assert TAESD.scale_latents(latent).tolist() == [0.0, 0.5, 1.0]
    assert TAESD.unscale_latents(TAESD.scale_latents(latent)).tolist() == latent.tolist()


def test_a_prompts_method_lasts_until_the_next(method):
    method(LatentPreviewMethod.Auto)
    latent_preview.set_preview_method("latent2rgb")
    assert args.preview_method == LatentPreviewMethod.Latent2RGB
    assert latent_preview.default_preview_method == LatentPreviewMethod.Auto
    for override in ("default", None, "nonsense"):
        latent_preview.set_preview_method("none")
        latent_preview.set_preview_method(override)
        assert args.preview_method == LatentPreviewMethod.Auto


def test_flags_have_their_old_names():
    assert args.preview_size == latent_preview.MAX_PREVIEW_RESOLUTION
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        latent_preview.nothing  # noqa: B018 - the access is the test


def test_what_the_progress_hook_raises_ends_the_sampling(method, monkeypatch):
    method(LatentPreviewMethod.NoPreviews)

    def stop(*arguments, **named):
        raise InterruptedError

    monkeypatch.setattr(hook_state, "hook", stop)
    with pytest.raises(InterruptedError):
        latent_preview.prepare_callback(model(), 2)(0, None, None, 2)


class WithoutRoom(latent_preview.LatentPreviewer):
    """Takes more memory than there is."""

    def decode_latent_to_preview(self, x0):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_without_memory_for_a_preview_sampling_goes_on(method, reports, monkeypatch, caplog):
    monkeypatch.setattr(latent_preview, "get_previewer", lambda device, latent_format: WithoutRoom())
    latent = torch.zeros(1, 4, 1, 1)
    latent_preview.prepare_callback(model(), 2)(0, latent, latent, 2)
    assert reports == [(1, 2, None)] and "no preview of this step" in caplog.text


def test_other_errors_of_a_preview_are_raised(method, monkeypatch):
    monkeypatch.setattr(latent_preview, "get_previewer", lambda device, latent_format: latent_preview.LatentPreviewer())
    with pytest.raises(NotImplementedError):
        latent_preview.prepare_callback(model(), 2)(0, torch.zeros(1, 4, 1, 1), None, 2)


def test_a_tiny_autoencoder_without_room_gives_way_to_rough_previews(method, tmp_path, monkeypatch, caplog):
    method(LatentPreviewMethod.TAESD)
    decoder_file(tmp_path / "taesd_decoder.safetensors")
    monkeypatch.setattr(folder_paths, "get_filename_list", lambda folder: ["taesd_decoder.safetensors"])
    monkeypatch.setattr(folder_paths, "get_full_path", lambda folder, name: str(tmp_path / name))

    def no_room(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TAESD, "to", no_room)
    assert isinstance(latent_preview.get_previewer("cpu", comfy.latent_formats.SD15()), latent_preview.Latent2RGBPreviewer)
    assert "showing rough previews instead" in caplog.text
