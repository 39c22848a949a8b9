"""BiRefNet: reading its files, its convolutions that look beside their cells, masks."""

import pytest
import torch
from birefnet_files import SMALL, birefnet_file, birefnet_tensors
from residency_models import arguments, management
from safetensors.torch import save_file

import comfy.background_removal.birefnet as birefnet
import comfy.bg_removal_model as removal
import folder_paths
from comfy.families.model_errors import IncompleteModelError, UnknownModelError
from comfy.ram_model_cache.host_memory import HostMemory, MemoryView
from comfy.residency.model_cache import make_ram_cache
from comfy.units import GIB
from comfy_extras.nodes_bg_removal import LoadBackgroundRemovalModel, RemoveBackground


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return birefnet_file(tmp_path_factory.mktemp("birefnet") / "birefnet.safetensors")


def test_sizes_are_read_from_a_files_shapes():
    shapes = {name: tuple(value.shape) for name, value in birefnet_tensors().items()}
    assert birefnet.read_birefnet_sizes(shapes) == SMALL
    assert birefnet.read_birefnet_sizes({"a": (1,)}) is None


def test_a_file_gives_masks_of_the_pictures_size(path, caplog, monkeypatch):
    model = removal.load(path)
    assert "not used" not in caplog.text
    monkeypatch.setattr(model, "image_size", 64)
    pictures = torch.rand(2, 30, 50, 3)
    with torch.inference_mode():
        (masks,) = RemoveBackground.execute(model, pictures).args
        alone = model.encode_image(pictures[1:])
    assert masks.shape == (2, 30, 50) and masks.min() >= 0 and masks.max() <= 1 and masks.std() > 0
    torch.testing.assert_close(masks[1:], alone)


def test_a_second_load_reads_nothing(path):
    memory = HostMemory(system=lambda: MemoryView(64 * GIB, 32 * GIB))
    with management(cache=lambda owner: make_ram_cache(arguments(ram_model_cache_mb=1024), owner), memory=memory) as manager:
        first, second = removal.load(path), removal.load(path)
        assert second.model is first.model and manager.ram_cache.check() == []
        manager.ram_cache.close()


def test_the_node_loads_what_is_in_its_folder(path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_full_path_or_raise", lambda folder, name: path if folder == "background_removal" else None)
    (model,) = LoadBackgroundRemovalModel.execute("birefnet.safetensors").args
    assert model.image_size == 1024 and LoadBackgroundRemovalModel.READS_AHEAD == {"bg_removal_name": "background_removal"}


def test_other_and_damaged_files_are_named(tmp_path):
    save_file({"other.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UnknownModelError, match=r"other\.safetensors holds no background removal model.*Supported: BiRefNet"):
        removal.load(str(tmp_path / "other.safetensors"))
    tensors = birefnet_tensors()
    del tensors["decoder.conv_out1.0.bias"]
    save_file(tensors, tmp_path / "broken.safetensors")
    with pytest.raises(IncompleteModelError, match=r"broken\.safetensors.*missing.*conv_out1"):
        removal.load(str(tmp_path / "broken.safetensors"))
    assert removal.load_background_removal_model({"a": torch.ones(1)}) is None


def test_without_offsets_the_convolution_is_a_plain_one():
    layer = birefnet.DeformableConv2d(3, 5, 3)
    for part in (layer.offset_conv, layer.modulator_conv):
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.zeros_(part.bias)
    x = torch.randn(2, 3, 6, 7)
    with torch.no_grad():
        torch.testing.assert_close(_as_layer(layer)(x), layer.regular_conv(x), atol=1e-5, rtol=1e-4)


def test_offsets_say_where_and_shares_how_much():
    layer = birefnet.DeformableConv2d(1, 1, 1)
    for part in (layer.offset_conv, layer.modulator_conv):
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.zeros_(part.bias)
    torch.nn.init.ones_(layer.regular_conv.weight)
    layer.offset_conv.bias.data = torch.tensor([1.0, -0.5])  # down, to the right
    layer.modulator_conv.bias.data = torch.tensor([1000.0])  # twice
    x = torch.arange(12.0).view(1, 1, 3, 4)
    with torch.no_grad():
        seen = _as_layer(layer)(x)[0, 0]
    assert seen[0].tolist() == pytest.approx([2 * 2.0, 2 * 4.5, 2 * 5.5, 2 * 6.5]) and seen[2].eq(0).all()


def _as_layer(layer):
    import comfy.ops

    comfy.ops.adopt_layers(layer)
    return layer


def test_the_picture_is_cut_into_parts_by_columns_and_rows():
    decoder = birefnet.Decoder.__new__(birefnet.Decoder)
    torch.nn.Module.__init__(decoder)
    decoder.ipt_blk3 = torch.nn.Module()
    decoder.ipt_blk3.conv1 = decoder.ipt_blk3.conv_out = torch.nn.Identity()
    picture = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    parts = decoder._with_picture(3, torch.zeros(2, 1, 2, 3), picture)[:, 1:]
    assert parts.shape == (2, 12, 2, 3)
    assert torch.equal(parts[:, 3:6], picture[:, :, 2:, :3]) and torch.equal(parts[:, 6:9], picture[:, :, :2, 3:])
