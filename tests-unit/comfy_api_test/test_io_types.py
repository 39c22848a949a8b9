"""The types of the V3 API: their names on the wire, and what their inputs print in /object_info."""

import enum

import pytest

from comfy_api.latest import IO, io
from comfy_api.latest import _io_public as io_public

PLAIN_NAMES = """
    Boolean Int Float String Combo Image Mask Latent Conditioning Sampler Sigmas Noise Guider Clip Vae Model Gligen Audio Video SVG Voxel
    Mesh Splat Hooks Accumulation Photomaker Point BBOX SEGS Webcam Tracks Color Colors Curve Histogram Range Layers Compositor Dict Array
""".split()
OTHER_NAMES = {
    "MultiCombo": "COMBO", "ControlNet": "CONTROL_NET", "ModelPatch": "MODEL_PATCH", "ClipVision": "CLIP_VISION",
    "ClipVisionOutput": "CLIP_VISION_OUTPUT", "BackgroundRemoval": "BACKGROUND_REMOVAL", "AudioEncoder": "AUDIO_ENCODER",
    "AudioEncoderOutput": "AUDIO_ENCODER_OUTPUT", "StyleModel": "STYLE_MODEL", "UpscaleModel": "UPSCALE_MODEL",
    "LatentUpscaleModel": "LATENT_UPSCALE_MODEL", "LoraModel": "LORA_MODEL", "LossMap": "LOSS_MAP", "File3DAny": "FILE_3D",
    "File3DGLB": "FILE_3D_GLB", "File3DGLTF": "FILE_3D_GLTF", "File3DFBX": "FILE_3D_FBX", "File3DOBJ": "FILE_3D_OBJ",
    "File3DSTL": "FILE_3D_STL", "File3DUSDZ": "FILE_3D_USDZ", "HookKeyframes": "HOOK_KEYFRAMES", "TimestepsRange": "TIMESTEPS_RANGE",
    "LatentOperation": "LATENT_OPERATION", "FlowControl": "FLOW_CONTROL", "Load3DCamera": "LOAD3D_CAMERA", "Load3D": "LOAD_3D",
    "Load3DAnimation": "LOAD_3D_ANIMATION", "FaceAnalysis": "FACE_ANALYSIS", "AnyType": "*",
    "WanCameraEmbedding": "WAN_CAMERA_EMBEDDING", "BoundingBox": "BOUNDING_BOX", "BoundingBoxes": "BOUNDING_BOXES",
    "ImageCompare": "IMAGECOMPARE", "MultiType": "COMFY_MULTITYPED_V3", "MatchType": "COMFY_MATCHTYPE_V3",
    "Autogrow": "COMFY_AUTOGROW_V3", "DynamicCombo": "COMFY_DYNAMICCOMBO_V3",
}  # fmt: skip
ALL_NAMES = {name: name.upper() for name in PLAIN_NAMES} | OTHER_NAMES


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def printed(declared):
    sections = {}
    io.add_to_dict_v1(declared, sections)
    ((section, entries),) = sections.items()
    assert list(entries) == [declared.id]
    return section, *entries[declared.id]


@pytest.mark.parametrize(("name", "io_type"), ALL_NAMES.items())
def test_type_has_its_name_on_the_wire(name, io_type):
    kind = getattr(io, name)
    assert kind.io_type == io_type
    assert name in io.__all__ and getattr(io_public, name) is kind and IO is io


@pytest.mark.parametrize("name", sorted(set(ALL_NAMES) - {"MultiCombo", "ImageCompare", "Autogrow", "DynamicCombo"}))
def test_inputs_and_outputs_know_their_own_type(name):
    kind = getattr(io, name)
    assert kind.Input.Parent is kind and kind.Output.Parent is kind


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (io.Image.Input("x"), ("required", "IMAGE", {})),
        (
            io.Image.Input(
                "x", display_name="D", optional=True, tooltip="t", lazy=True, raw_link=True, advanced=True, extra_dict={"a": 1, "b": None}
            ),
            ("optional", "IMAGE", {"display_name": "D", "tooltip": "t", "lazy": True, "rawLink": True, "advanced": True, "a": 1}),
        ),
        (
            io.Boolean.Input("x", default=False, label_on="yes", label_off="no", force_input=True, socketless=False),
            ("required", "BOOLEAN", {"default": False, "label_on": "yes", "label_off": "no", "forceInput": True, "socketless": False}),
        ),
        (
            io.Int.Input("x", default=0, min=0, max=9, step=2, control_after_generate=True, display_mode=io.NumberDisplay.slider),
            ("required", "INT", {"default": 0, "min": 0, "max": 9, "step": 2, "control_after_generate": True, "display": "slider"}),
        ),
        (
            io.Int.Input("x", control_after_generate=io.ControlAfterGenerate.increment),
            ("required", "INT", {"control_after_generate": "increment"}),
        ),
        (
            io.Float.Input("x", round=0.1, display_mode=io.NumberDisplay.gradient_slider, gradient_stops=[{"offset": 0}]),
            ("required", "FLOAT", {"round": 0.1, "display": "gradientslider", "gradient_stops": [{"offset": 0}]}),
        ),
        (io.String.Input("x"), ("required", "STRING", {"multiline": False})),
        (
            io.String.Input("x", multiline=True, placeholder="p", dynamic_prompts=True),
            ("required", "STRING", {"multiline": True, "placeholder": "p", "dynamicPrompts": True}),
        ),
        (io.Combo.Input("x", options=["a"]), ("required", "COMBO", {"multiselect": False, "options": ["a"]})),
        (
            io.Combo.Input("x", options=Colour, default=Colour.BLUE),
            ("required", "COMBO", {"multiselect": False, "options": ["red", "blue"], "default": "blue"}),
        ),
        (
            io.Combo.Input("x", upload=io.UploadType.model, image_folder=io.FolderType.output),
            ("required", "COMBO", {"multiselect": False, "file_upload": True, "image_folder": "output"}),
        ),
        (
            io.Combo.Input("x", remote=io.RemoteOptions("/route", True, timeout=5)),
            (
                "required", "COMBO",
                {
                    "multiselect": False,
                    "remote": {"route": "/route", "refresh_button": True, "control_after_refresh": "first", "timeout": 5},
                },
            ),
        ),
        (io.MultiCombo.Input("x", ["a"]), ("required", "COMBO", {"multiselect": True, "options": ["a"], "multi_select": {}})),
        (
            io.MultiCombo.Input("x", ["a"], placeholder="p", chip=True),
            ("required", "COMBO", {"multiselect": True, "options": ["a"], "multi_select": {"placeholder": "p", "chip": True}}),
        ),
        (io.Color.Input("x"), ("required", "COLOR", {"default": "#ffffff", "socketless": True})),
        (io.Colors.Input("x"), ("required", "COLORS", {"default": [], "socketless": True})),
        (io.ImageCompare.Input("x"), ("required", "IMAGECOMPARE", {"socketless": True})),
        (
            io.BoundingBox.Input("x", component="Crop"),
            (
                "required", "BOUNDING_BOX",
                {"default": {"x": 0, "y": 0, "width": 512, "height": 512}, "socketless": True, "component": "Crop"},
            ),
        ),
        (
            io.Curve.Input("x"),
            (
                "required", "CURVE",
                {"default": {"points": [[0.0, 0.0], [1.0, 1.0]], "interpolation": "monotone_cubic"}, "socketless": True},
            ),
        ),
        (
            io.Range.Input("x", value_max=2.0),
            ("required", "RANGE", {"default": {"min": 0.0, "max": 1.0}, "socketless": True, "value_max": 2.0}),
        ),
        (io.Webcam.Input("x"), ("required", "WEBCAM", {})),
    ],
)  # fmt: skip
def test_input_prints_its_options_and_leaves_out_none(declared, expected):
    assert printed(declared) == expected


def test_widget_type_replaces_the_printed_type():
    class Picker(io.WidgetInput):
        Parent = io.String

    assert printed(Picker("x", widget_type="PICKER"))[1:] == ("PICKER", {"widgetType": "PICKER"})


def test_custom_types_have_equal_names_and_separate_classes():
    first, second = io.Custom("MINE"), io.Custom("MINE")
    assert first is not second and first.io_type == second.io_type == "MINE"
    assert printed(first.Input("x")) == ("required", "MINE", {})
    assert first.Output().io_type == "MINE"


def test_comfytype_declares_a_plain_class_and_keeps_its_input():
    @io.comfytype(io_type="GADGET")
    class Gadget:
        Type = dict

        class Input(io.WidgetInput):
            def as_dict(self):
                return super().as_dict() | {"extra": 1}

    assert printed(Gadget.Input("x", default=3)) == ("required", "GADGET", {"default": 3, "extra": 1})
    assert issubclass(Gadget, io.ComfyTypeIO) and Gadget.Output("o").io_type == "GADGET"
    assert Gadget.Input("x").Type is dict


def test_declaring_a_subtype_does_not_change_the_type_it_derives_from():
    @io.comfytype(io_type="BIG_INT")
    class BigInt(io.Int):
        pass

    assert (BigInt.Input("x").io_type, io.Int.Input("x").io_type) == ("BIG_INT", "INT")
    assert isinstance(io.MultiCombo.Input("x", []), io.Combo.Input.__mro__[1])


def test_outputs_print_name_tooltip_and_list_flag():
    assert io.Image.Output("out", tooltip="t").as_dict() == {"display_name": "out", "tooltip": "t", "is_output_list": False}
    assert io.Image.Output().as_dict() == {"is_output_list": False}
    assert io.Combo.Output("c").options == []


def test_tensor_annotations_recognise_torch_tensors():
    import torch

    assert isinstance(torch.zeros(1), io.Image.Type) and not isinstance([1], io.Image.Type)
    assert issubclass(torch.Tensor, io.Mask.Type) and not issubclass(int, io.Mask.Type)
