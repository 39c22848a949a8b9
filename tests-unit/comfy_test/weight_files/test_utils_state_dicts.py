"""State dict files, attribute paths, batches, and the names of comfy.utils."""

import json
import pickle
import zlib

import pytest
import torch

from comfy import utils


def test_safetensors_round_trip_with_metadata(tmp_path):
    path = str(tmp_path / "a.safetensors")
    utils.save_torch_file({"x": torch.arange(4)}, path, metadata={"prompt": "1"})
    tensors, metadata = utils.load_torch_file(path, return_metadata=True)
    assert torch.equal(tensors["x"], torch.arange(4)) and metadata == {"prompt": "1"}
    assert json.loads(utils.safetensors_header(path))["x"]["shape"] == [4]
    assert utils.safetensors_header(path, max_size=3) is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("content, problem", [(b"<html>no model here</html>", "is not a safetensors file"), (b"", "a.safetensors")])
def test_files_that_are_not_safetensors_are_named(tmp_path, content, problem):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        utils.load_torch_file(str(path))


def test_incomplete_safetensors_are_reported_as_incomplete(tmp_path):
    path = tmp_path / "a.sft"
    utils.save_torch_file({"x": torch.rand(1000)}, str(path))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="is incomplete"):
        utils.load_torch_file(str(path))
    with pytest.raises(ValueError, match="cannot be a safetensors file"):
        path.write_bytes(b"1234")
        utils.safetensors_header(str(path))


def test_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(Exception, match="metadata"):
        utils.save_torch_file({"x": torch.rand(2)}, str(path), metadata={"number": 1})
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "content", [{"state_dict": {"w": torch.ones(2)}, "epoch": 3}, {"model": {"w": torch.ones(2)}}, {"w": torch.ones(2)}]
)
def test_pickled_checkpoints_are_unwrapped(tmp_path, content):
    path = str(tmp_path / "a.ckpt")
    torch.save(content, path)
    assert list(utils.load_torch_file(path)) == ["w"]


class Trap:
    def __reduce__(self):
        return (print, ("code ran",))


def test_pickles_with_code_are_refused(tmp_path, capsys):
    path = str(tmp_path / "a.pt")
    torch.save({"w": Trap()}, path)
    with pytest.raises(ValueError, match=r"a\.pt holds more than tensors"):
        utils.load_torch_file(path)
    with open(path, "wb") as opened:
        pickle.dump(Trap(), opened, protocol=2)
    with pytest.raises(ValueError, match=r"a\.pt"):
        utils.load_torch_file(path)
    assert capsys.readouterr().out == ""


def test_missing_file_says_so(tmp_path):
    for name in ("a.safetensors", "a.pt"):
        with pytest.raises(FileNotFoundError):
            utils.load_torch_file(str(tmp_path / name))


def test_parameters_are_counted_and_keys_renamed():
    tensors = {"a.x": torch.ones(3), "a.y": torch.ones(2, dtype=torch.float16), "b.x": torch.ones(9)}
    assert utils.calculate_parameters(tensors, "a.") == 5 and utils.calculate_parameters(tensors) == 14
    assert utils.weight_dtype(tensors, "a.") == torch.float32 and utils.weight_dtype({}) is None
    assert list(utils.state_dict_key_replace(dict(tensors), {"a.x": "c", "z": "q"})) == ["a.y", "b.x", "c"]
    moved = dict(tensors)
    assert set(utils.state_dict_prefix_replace(moved, {"a.": "m."}, filter_keys=True)) == {"m.x", "m.y"} and list(moved) == ["b.x"]
    assert set(utils.state_dict_prefix_replace(dict(tensors), {"a.": ""})) == {"x", "y", "b.x"}
    assert utils.convert_sd_to(dict(tensors), torch.float16)["b.x"].dtype == torch.float16


def test_old_marks_of_quantized_layers_become_one():
    state = {
        "m.scaled_fp8": torch.zeros(2),
        "m.l.weight": torch.ones(1),
        "m.l.scale_weight": torch.ones(1),
        "m.l.scale_input": torch.tensor(1.0),
        "other.scale_weight": torch.ones(1),
    }
    converted, _ = utils.convert_old_quants(state, "m.")
    assert set(converted) == {"m.l.weight", "m.l.weight_scale", "m.l.comfy_quant", "other.scale_weight"}
    settings = json.loads(bytes(converted["m.l.comfy_quant"].tolist()))
    assert settings == {"format": "float8_e4m3fn", "full_precision_matrix_mult": True}
    assert utils.detect_layer_quantization(converted, "m.") == {"mixed_ops": True}
    from_metadata, _ = utils.convert_old_quants({"l.weight": torch.ones(1)}, metadata={"_quantization_metadata": '{"layers": {"l": {}}}'})
    assert set(from_metadata) == {"l.weight", "l.comfy_quant"}
    assert utils.convert_old_quants({"w": 1}) == ({"w": 1}, {}) and utils.detect_layer_quantization({"w": 1}, "") is None


def test_attribute_paths():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    before = utils.get_attr(model, "0.weight")
    assert utils.set_attr_param(model, "0.weight", torch.ones(2, 2)) is before
    assert isinstance(model[0].weight, torch.nn.Parameter) and not model[0].weight.requires_grad
    utils.copy_to_param(model, "0.bias", torch.full((2,), 3.0))
    assert model[0].bias.tolist() == [3.0, 3.0]
    assert utils.set_attr(model, "0.extra", 1) is utils.ATTR_UNSET
    assert utils.set_attr(model, "0.extra", utils.ATTR_UNSET) == 1 and not hasattr(model[0], "extra")
    with torch.inference_mode():
        inference_tensor = torch.ones(2)
    utils.set_attr_param(model, "0.bias", inference_tensor)
    assert not model[0].bias.is_inference()
    model[0].register_buffer("table", torch.zeros(1), persistent=False)
    utils.set_attr_buffer(model, "0.table", torch.ones(1))
    assert model[0].table.item() == 1 and "0.table" not in model.state_dict()


@pytest.mark.parametrize("present, wanted, picked", [(2, 5, [0, 1, 0, 1, 0]), (3, 2, [0, 1]), (3, 3, [0, 1, 2])])
def test_repeating_to_a_batch_size(present, wanted, picked):
    assert utils.repeat_to_batch_size(torch.arange(present), wanted).tolist() == picked
    assert utils.repeat_to_batch_size(torch.arange(present)[None], wanted, dim=1).tolist() == [picked]


@pytest.mark.parametrize("present, wanted, picked", [(2, 5, [0, 0, 1, 1, 1]), (5, 3, [0, 2, 4]), (4, 1, [0]), (3, 3, [0, 1, 2])])
def test_spreading_to_a_batch_size(present, wanted, picked):
    assert utils.resize_to_batch_size(torch.arange(present), wanted).tolist() == picked
    assert utils.resize_list_to_batch_size(list(range(present)), wanted) == picked
    assert utils.resize_list_to_batch_size([], wanted) == []


def test_masks_take_the_shape_of_latents():
    assert utils.reshape_mask(torch.rand(8, 8), (3, 4, 16, 12)).shape == (3, 4, 16, 12)
    assert utils.reshape_mask(torch.rand(5, 8, 8), (1, 2, 3, 4, 4)).shape == (1, 2, 3, 4, 4)
    assert utils.reshape_mask(torch.rand(1, 1, 8), (2, 4, 16)).shape == (2, 4, 16)


def test_latents_are_packed_and_unpacked():
    latents = [torch.rand(2, 4, 3, 3), torch.rand(2, 8, 5)]
    packed, shapes = utils.pack_latents(latents)
    assert packed.shape == (2, 1, 76)
    assert all(torch.equal(*pair) for pair in zip(utils.unpack_latents(packed, shapes), latents))
    assert utils.unpack_latents(packed, shapes[:1])[0] is packed


def test_string_seed_is_the_crc():
    assert utils.string_to_seed(b"keepwarm") == utils.string_to_seed("keepwarm") == zlib.crc32(b"keepwarm")


def test_progress_settings_are_read_live():
    try:
        utils.set_progress_bar_enabled(False)
        assert utils.PROGRESS_BAR_ENABLED is False
        utils.set_progress_bar_global_hook(print)
        assert utils.PROGRESS_BAR_HOOK is print
    finally:
        utils.set_progress_bar_enabled(True)
        utils.set_progress_bar_global_hook(None)
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = utils.nothing_here
    assert list(utils.model_trange(3, disable=True)) == [0, 1, 2]


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_nodes_may_make_tensors_of_a_file_the_data_of_their_parameters(tmp_path, name):
    tensors = {"whole": torch.randn(2, 3), "half": torch.randn(2, 3).half(), "none": torch.empty(0)}
    path = str(tmp_path / name)
    utils.save_torch_file(tensors, path) if name.endswith("s") else torch.save(tensors, path)
    with torch.inference_mode():
        read = utils.load_torch_file(path)
        layer = torch.nn.Linear(3, 2, bias=False)
        layer.weight.data = read["whole"]
        assert torch.equal(layer(torch.eye(3)), tensors["whole"].T)
        assert all(torch.equal(read[key], tensor) and read[key].is_inference() for key, tensor in tensors.items())
    assert not utils.load_torch_file(path)["whole"].is_inference()
