"""Upscaling models: read through the RAM model cache, run tile by tile, smaller tiles where memory is short."""

import contextlib

import pytest
import torch

import comfy.model_management
import folder_paths
from comfy.loading.model_files import ModelFiles
from comfy.ram_model_cache.cache import RamModelCache
from comfy.ram_model_cache.values import CacheSettings, OwnerHooks
from comfy_extras import nodes_upscale_model
from comfy_extras.chainner_models import upscale_loading
from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel, UpscaleModelLoader

spandrel = pytest.importorskip("spandrel", reason="upscaling models are built by spandrel: pip install -c constraints.txt spandrel")


def weights(channels=3):
    """A small Compact (SRVGGNet) of scale 2 with random weights, under its published names."""
    torch.manual_seed(3)
    layers = [
        torch.nn.Conv2d(channels, 8, 3),
        torch.nn.PReLU(8),
        torch.nn.Conv2d(8, 8, 3),
        torch.nn.PReLU(8),
        torch.nn.Conv2d(8, 4 * channels, 3),
    ]
    return {f"body.{number}.{name}": value.detach() for number, layer in enumerate(layers) for name, value in layer.named_parameters()}


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "models" / "upscale_models" / "small.pth"
    path.parent.mkdir(parents=True)
    torch.save({"params": weights()}, path)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "upscale_models", ([str(path.parent)], {".pth", ".safetensors"}))
    folder_paths.filename_list_cache.clear()
    return path


def test_a_file_is_loaded_and_pictures_are_enlarged(file):
    model = UpscaleModelLoader.execute("small.pth").args[0]
    assert isinstance(model, spandrel.ImageModelDescriptor) and model.scale == 2 and model.patcher.model is model.model
    image = torch.rand(2, 20, 30, 3)
    result = ImageUpscaleWithModel.execute(model, image).args[0]
    expected = model.model(image.movedim(-1, 1)).clamp(0, 1).movedim(1, -1)
    assert result.shape == (2, 40, 60, 3) and torch.allclose(result, expected, atol=1e-5)


def test_large_pictures_are_enlarged_in_tiles_without_seams(file, monkeypatch):
    model = UpscaleModelLoader.execute("small.pth").args[0]
    image = torch.rand(1, 150, 200, 3)
    whole = ImageUpscaleWithModel.execute(model, image).args[0]
    monkeypatch.setattr(nodes_upscale_model, "TILE", 96)
    sizes = []
    monkeypatch.setattr(model.model, "forward", lambda x, forward=model.model.forward: sizes.append(tuple(x.shape[-2:])) or forward(x))
    tiled = ImageUpscaleWithModel.execute(model, image).args[0]
    assert (tiled - whole).abs().mean() < 1e-3, "only where tiles end the network sees less around a pixel"
    assert len(sizes) > 3 and max(max(size) for size in sizes) <= 96


def test_tiles_are_halved_while_memory_is_short_and_no_further_than_they_may(file, monkeypatch):
    model = UpscaleModelLoader.execute("small.pth").args[0]
    forward, sizes = model.model.forward, []

    def limited(x, most=128):
        sizes.append(max(x.shape[-2:]))
        if sizes[-1] > most:
            raise comfy.model_management.OOM_EXCEPTION("no memory left")
        return forward(x)

    monkeypatch.setattr(model.model, "forward", limited)
    image = torch.rand(1, 300, 300, 3)
    assert ImageUpscaleWithModel.execute(model, image).args[0].shape == (1, 600, 600, 3)
    assert sizes[0] == 300 and sizes[-1] <= 128
    monkeypatch.setattr(model.model, "forward", lambda x: limited(x, most=0))
    with pytest.raises(comfy.model_management.OOM_EXCEPTION):
        ImageUpscaleWithModel.execute(model, image)


def test_the_cache_is_told_the_bytes_before_they_are_read(file):
    with contextlib.ExitStack() as stack:
        part = upscale_loading._UpscalePart(stack.enter_context(ModelFiles(str(file))))
        assert part.estimate_bytes() == sum(value.numel() * 4 for value in weights().values())


def test_a_model_that_was_read_before_is_lent_by_the_cache(file, monkeypatch):
    cache = RamModelCache(CacheSettings(2**30, headroom_bytes=0), OwnerHooks(), start_thread=lambda run: None)
    monkeypatch.setattr(comfy.model_management, "ram_cache", lambda: cache)
    cache.begin_prompt("one")
    first, again = (upscale_loading.load_upscale_model(str(file)) for _ in range(2))
    assert first.model is again.model and first.patcher is not again.patcher
    assert torch.equal(first(torch.zeros(1, 3, 4, 4)), again(torch.zeros(1, 3, 4, 4)))
    receipts = cache.receipts("one")
    assert [one["tier"] for one in receipts] == ["disk", "ram"] and not cache.check()
