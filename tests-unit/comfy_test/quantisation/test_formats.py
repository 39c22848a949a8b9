"""What files say about layers is read, and what is not known is refused by name."""

import pytest

from comfy.quantisation import kitchen
from comfy.quantisation.formats import FORMATS, UnknownFormat, read_settings, settings_of


@pytest.mark.parametrize("name", FORMATS)
def test_settings_are_read_and_written(name):
    settings = {"format": name, "full_precision_matrix_mult": True}
    if name == "asym_w4a8_int8":
        settings |= {"group_size": 32, "convrot": True, "convrot_groupsize": 64}
    layer = read_settings(settings)
    assert layer.format.name == name and layer.full_precision and settings_of(layer) == settings


def test_codes_are_rotated_and_in_groups_also_where_the_file_does_not_say_so():
    layer = read_settings({"format": "asym_w4a8_int8"})
    assert (layer.rotation, layer.group) == (256, 16)
    assert read_settings({"format": "asym_w4a8_int8", "params": {"group_size": 64}}).group == 64


@pytest.mark.parametrize("settings", [{"convrot": True, "convrot_groupsize": 64}, {"params": {"convrot": True, "convrot_groupsize": 64}}])
def test_rotation_may_stand_in_two_places(settings):
    layer = read_settings({"format": "int8_tensorwise", **settings})
    assert layer.rotation == 64 and read_settings(settings_of(layer)) == layer
    assert read_settings({"format": "int8_tensorwise", "convrot": True}).rotation == 256


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"format": "int3"}, "int3"),
        ({"format": "convrot_w4a4"}, "convrot_w4a4"),
        ({"format": "nvfp4", "num_experts": 8}, "nvfp4 with the setting 'num_experts'"),
        ({"format": "nvfp4", "convrot": True}, "nvfp4 with convrot"),
        ({"format": "nvfp4", "group_size": 16}, "nvfp4 with the setting 'group_size'"),
        ({"format": "asym_w4a8_int8", "convrot": False}, "asym_w4a8_int8 without convrot"),
        ([1], "a list"),
    ],
)
def test_what_is_not_known_is_named(settings, said):
    with pytest.raises(UnknownFormat, match=said):
        read_settings(settings)


def test_kitchen_is_asked_for_without_importing_it():
    assert isinstance(kitchen.is_installed(), bool) and "requirements-quantised.txt" in kitchen.INSTALL
