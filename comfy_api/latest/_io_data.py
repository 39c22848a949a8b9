"""The types without a widget: images, latents, models and other values that travel only along links.

Annotations name torch tensors through a stand-in, so that importing this module does not import torch.
"""

from collections.abc import Callable
from typing import Any, NotRequired, TypedDict

from ._input.basic_types import AudioInput, LatentInput
from ._io_base import ComfyTypeIO, comfytype
from ._tensor_type import Tensor
from ._util.image_types import SVG as SvgImages


def _tensor_type(name: str, io_type: str, meaning: str) -> type[ComfyTypeIO]:
    return comfytype(io_type=io_type)(type(name, (ComfyTypeIO,), {"__module__": __name__, "__doc__": meaning, "Type": Tensor}))


def _opaque_type(name: str, io_type: str, meaning: str) -> type[ComfyTypeIO]:
    return comfytype(io_type=io_type)(type(name, (ComfyTypeIO,), {"__module__": __name__, "__doc__": meaning}))


Image = _tensor_type("Image", "IMAGE", "Images: float tensor [batch, height, width, channel], 0 to 1.")
Mask = _tensor_type("Mask", "MASK", "Masks: float tensor [batch, height, width], 0 to 1.")
Sigmas = _tensor_type("Sigmas", "SIGMAS", "Noise levels of a sampling run, one more than it has steps.")
Noise = _tensor_type("Noise", "NOISE", "A source of noise for a sampler.")
WanCameraEmbedding = _tensor_type("WanCameraEmbedding", "WAN_CAMERA_EMBEDDING", "A camera path encoded for Wan video models.")

Sampler = _opaque_type("Sampler", "SAMPLER", "A sampling method.")
Guider = _opaque_type("Guider", "GUIDER", "Guidance that a sampler follows.")
Clip = _opaque_type("Clip", "CLIP", "A text encoder with its tokenizer.")
ControlNet = _opaque_type("ControlNet", "CONTROL_NET", "A control net.")
Vae = _opaque_type("Vae", "VAE", "A variational auto-encoder.")
Model = _opaque_type("Model", "MODEL", "A diffusion model, as a model patcher.")
ModelPatch = _opaque_type("ModelPatch", "MODEL_PATCH", "Weights that extend a diffusion model.")
ClipVision = _opaque_type("ClipVision", "CLIP_VISION", "An image encoder.")
ClipVisionOutput = _opaque_type("ClipVisionOutput", "CLIP_VISION_OUTPUT", "What an image encoder returns.")
BackgroundRemoval = _opaque_type("BackgroundRemoval", "BACKGROUND_REMOVAL", "A model that separates foreground from background.")
AudioEncoder = _opaque_type("AudioEncoder", "AUDIO_ENCODER", "A sound encoder.")
AudioEncoderOutput = _opaque_type("AudioEncoderOutput", "AUDIO_ENCODER_OUTPUT", "What a sound encoder returns.")
StyleModel = _opaque_type("StyleModel", "STYLE_MODEL", "A style model.")
Gligen = _opaque_type("Gligen", "GLIGEN", "A GLIGEN model, as a model patcher.")
UpscaleModel = _opaque_type("UpscaleModel", "UPSCALE_MODEL", "A model that enlarges images.")
LatentUpscaleModel = _opaque_type("LatentUpscaleModel", "LATENT_UPSCALE_MODEL", "A model that enlarges latents.")
Video = _opaque_type("Video", "VIDEO", "A video; see ``Input.Video``.")
Hooks = _opaque_type("Hooks", "HOOKS", "A group of hooks on conditioning or models.")
HookKeyframes = _opaque_type("HookKeyframes", "HOOK_KEYFRAMES", "When hooks apply and how strongly.")
Photomaker = _opaque_type("Photomaker", "PHOTOMAKER", "A PhotoMaker model.")
Point = _opaque_type("Point", "POINT", "A point.")
FaceAnalysis = _opaque_type("FaceAnalysis", "FACE_ANALYSIS", "A face analysis model.")
BBOX = _opaque_type("BBOX", "BBOX", "A detected box.")
SEGS = _opaque_type("SEGS", "SEGS", "Detected segments.")
AnyType = _opaque_type("AnyType", "*", "Any value; matches every other type.")


@comfytype(io_type="LATENT")
class Latent(ComfyTypeIO):
    """Latents: a dictionary with ``samples`` and data about them."""

    LatentDict = LatentInput
    Type = LatentInput


@comfytype(io_type="CONDITIONING")
class Conditioning(ComfyTypeIO):
    """Conditioning: a list of pairs of an encoded text and a dictionary with further values that steer sampling."""

    PooledDict = dict[str, Any]
    CondList = list[tuple[Tensor, dict[str, Any]]]
    Type = CondList


@comfytype(io_type="AUDIO")
class Audio(ComfyTypeIO):
    """Sound: a dictionary with ``waveform`` [batch, channel, sample] and ``sample_rate``."""

    AudioDict = AudioInput
    Type = AudioInput


@comfytype(io_type="SVG")
class SVG(ComfyTypeIO):
    """Vector images."""

    Type = SvgImages


@comfytype(io_type="LORA_MODEL")
class LoraModel(ComfyTypeIO):
    """The tensors of a LoRA by name."""

    Type = dict[str, Tensor]


@comfytype(io_type="LOSS_MAP")
class LossMap(ComfyTypeIO):
    """Losses recorded while training."""

    class LossMapDict(TypedDict):
        """One loss per step."""

        loss: list[Tensor]

    Type = LossMapDict


@comfytype(io_type="TIMESTEPS_RANGE")
class TimestepsRange(ComfyTypeIO):
    """A part of the sampling run: start and end, each between 0 and 1."""

    Type = tuple[int, int]


@comfytype(io_type="LATENT_OPERATION")
class LatentOperation(ComfyTypeIO):
    """A function from latents to latents."""

    Type = Callable[[Tensor], Tensor]


@comfytype(io_type="FLOW_CONTROL")
class FlowControl(ComfyTypeIO):
    """The link between the opening and the closing node of a loop."""

    Type = tuple[str, Any]


@comfytype(io_type="ACCUMULATION")
class Accumulation(ComfyTypeIO):
    """Values collected over the rounds of a loop."""

    class AccumulationDict(TypedDict):
        """The values so far."""

        accum: list[Any]

    Type = AccumulationDict


@comfytype(io_type="TRACKS")
class Tracks(ComfyTypeIO):
    """Paths of points through a video."""

    class TrackDict(TypedDict):
        """Positions and whether each is visible."""

        track_path: Tensor
        track_visibility: Tensor

    Type = TrackDict


@comfytype(io_type="LAYERS")
class Layers(ComfyTypeIO):
    """A document of image layers."""

    class LayerItem(TypedDict, total=False):
        """One layer: an image with a place, an order and a way to blend."""

        image: Tensor
        mask: Tensor
        type: str
        name: str
        z_index: int
        x: int
        y: int
        w: int
        h: int
        rotation: float
        opacity: float
        blend_mode: str
        visible: bool
        flip_h: bool
        flip_v: bool

    class Document(TypedDict):
        """A canvas and its layers."""

        version: int
        canvas: NotRequired[tuple[int, int]]
        layers: list["Layers.LayerItem"]

    Type = Document


@comfytype(io_type="HISTOGRAM")
class Histogram(ComfyTypeIO):
    """Counts per bin."""

    Type = list[int]


@comfytype(io_type="DICT")
class Dict(ComfyTypeIO):
    """A dictionary."""

    Type = dict


@comfytype(io_type="ARRAY")
class Array(ComfyTypeIO):
    """A list as one value."""

    Type = list
