"""3D files, meshes and vector images that nodes hand on."""

from io import BytesIO

import pytest

from comfy_api.latest import Types
from comfy_api.latest._util import SVG


def test_file_on_disk_knows_its_format_and_is_copied(tmp_path):
    source = tmp_path / "model.GLB"
    source.write_bytes(b"glTF")
    model = Types.File3D(str(source))
    assert model.format == "glb" and model.is_disk_backed and model.get_source() == str(source)
    target = str(tmp_path / "deep" / "copy.glb")
    assert model.save_to(target) == target and Types.File3D(target).get_bytes() == b"glTF"
    assert model.save_to(str(source)) == str(source) and source.read_bytes() == b"glTF"
    assert "model.GLB" in repr(model)


def test_file_in_memory_can_be_read_repeatedly(tmp_path):
    model = Types.File3D(BytesIO(b"solid"), ".STL")
    assert (model.format, model.is_disk_backed) == ("stl", False)
    assert model.get_bytes() == model.get_bytes() == model.get_data().read() == b"solid"
    assert (tmp_path / "a.stl").exists() is False
    model.save_to(str(tmp_path / "a.stl"))
    assert (tmp_path / "a.stl").read_bytes() == b"solid"
    model.format = "OBJ"
    assert model.format == "obj" and Types.File3D(BytesIO()).format == ""


def test_mesh_counts_come_together():
    mesh = Types.MESH("v", "f", unlit=True)
    assert (mesh.vertices, mesh.faces, mesh.uvs, mesh.unlit) == ("v", "f", None, True)
    with pytest.raises(ValueError, match="both vertex_counts and face_counts"):
        Types.MESH("v", "f", vertex_counts="c")


def test_vector_images_are_joined():
    files = [BytesIO(b"a"), BytesIO(b"b"), BytesIO(b"c")]
    assert SVG(files[:1]).combine(SVG(files[1:])).data == files
    assert SVG.combine_all([SVG(files[:2]), SVG(files[2:])]).data == files
