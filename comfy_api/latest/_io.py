"""``comfy_api.latest.io``: everything that a V3 node's declaration needs."""

from comfy_execution.graph_utils import ExecutionBlocker

from ._io_3d import (
    File3DAny,
    File3DFBX,
    File3DGLB,
    File3DGLTF,
    File3DKSPLAT,
    File3DOBJ,
    File3DPLY,
    File3DPointCloudAny,
    File3DSPLAT,
    File3DSplatAny,
    File3DSPZ,
    File3DSTL,
    File3DUSDZ,
    Load3D,
    Load3DAnimation,
    Load3DCamera,
    Load3DModelInfo,
    Mesh,
    Splat,
    Voxel,
)
from ._io_base import ComfyTypeI, ComfyTypeIO, Custom, Input, Output, WidgetInput, _ComfyType, comfytype
from ._io_data import (
    BBOX,
    SEGS,
    SVG,
    Accumulation,
    AnyType,
    Array,
    Audio,
    AudioEncoder,
    AudioEncoderOutput,
    BackgroundRemoval,
    Clip,
    ClipVision,
    ClipVisionOutput,
    Conditioning,
    ControlNet,
    Dict,
    FaceAnalysis,
    FlowControl,
    Gligen,
    Guider,
    Histogram,
    HookKeyframes,
    Hooks,
    Image,
    Latent,
    LatentOperation,
    LatentUpscaleModel,
    Layers,
    LoraModel,
    LossMap,
    Mask,
    Model,
    ModelPatch,
    Noise,
    Photomaker,
    Point,
    Sampler,
    Sigmas,
    StyleModel,
    TimestepsRange,
    Tracks,
    UpscaleModel,
    Vae,
    Video,
    WanCameraEmbedding,
)
from ._io_dynamic import Autogrow, DynamicCombo, DynamicInput, DynamicOutput, DynamicSlot, add_to_dict_v1, create_input_dict_v1
from ._io_editors import BoundingBox, BoundingBoxes, Color, Colors, Compositor, Curve, ImageCompare, Range, Webcam
from ._io_hidden import Hidden, HiddenHolder, V3Data
from ._io_match import MatchType, MultiType
from ._io_node import ComfyNode
from ._io_output import NodeOutput, _UIOutput
from ._io_price import PriceBadge, PriceBadgeDepends
from ._io_replace import InputMap, InputMapOldId, InputMapSetValue, NodeReplace, OutputMap
from ._io_schema import NodeInfoV1, Schema
from ._io_widgets import (
    Boolean,
    Combo,
    ControlAfterGenerate,
    Float,
    FolderType,
    Int,
    MultiCombo,
    NumberDisplay,
    RemoteOptions,
    String,
    UploadType,
)

__all__ = [
    "BBOX", "SEGS", "SVG", "Accumulation", "AnyType", "Array", "Audio", "AudioEncoder", "AudioEncoderOutput", "Autogrow",
    "BackgroundRemoval", "Boolean", "BoundingBox", "BoundingBoxes", "Clip", "ClipVision", "ClipVisionOutput", "Color", "Colors",
    "Combo", "ComfyNode", "ComfyTypeI", "ComfyTypeIO", "Compositor", "Conditioning", "ControlAfterGenerate", "ControlNet", "Curve",
    "Custom", "Dict", "DynamicCombo", "DynamicInput", "DynamicOutput", "DynamicSlot", "ExecutionBlocker", "FaceAnalysis",
    "File3DAny", "File3DFBX", "File3DGLB", "File3DGLTF", "File3DKSPLAT", "File3DOBJ", "File3DPLY", "File3DPointCloudAny",
    "File3DSPLAT", "File3DSPZ", "File3DSTL", "File3DSplatAny", "File3DUSDZ", "Float", "FlowControl", "FolderType", "Gligen",
    "Guider", "Hidden", "HiddenHolder", "Histogram", "HookKeyframes", "Hooks", "Image", "ImageCompare", "Input", "InputMap",
    "InputMapOldId", "InputMapSetValue", "Int", "Latent", "LatentOperation", "LatentUpscaleModel", "Layers", "Load3D",
    "Load3DAnimation", "Load3DCamera", "Load3DModelInfo", "LoraModel", "LossMap", "Mask", "MatchType", "Mesh", "Model",
    "ModelPatch", "MultiCombo", "MultiType", "NodeInfoV1", "NodeOutput", "NodeReplace", "Noise", "NumberDisplay", "Output",
    "OutputMap", "Photomaker", "Point", "PriceBadge", "PriceBadgeDepends", "Range", "RemoteOptions", "Sampler", "Schema",
    "Sigmas", "Splat", "String", "StyleModel", "TimestepsRange", "Tracks", "UploadType", "UpscaleModel", "V3Data", "Vae", "Video",
    "Voxel", "WanCameraEmbedding", "Webcam", "WidgetInput", "_ComfyType", "_UIOutput", "add_to_dict_v1", "comfytype",
    "create_input_dict_v1",
]  # fmt: skip
