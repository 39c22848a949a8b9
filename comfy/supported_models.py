"""The model families that checkpoints are matched against, most specific first (:data:`models`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import comfy.utils
from comfy import latent_formats, model_base, sd1_clip, sdxl_clip, supported_models_base
from comfy.dit import registry
from comfy.families.open_clip_names import to_open_clip
from comfy.ldm.modules.encoders import noise_aug_modules
from comfy.placeholders import placeholders
from comfy.text_encoders import sd2_clip

SIZE_EMBEDDING = 256
PLAIN_CHANNELS: Sequence[int] = (4, 9)  # a latent, for inpainting with a mask and the masked picture
GUIDED_CHANNELS: Sequence[int] = (8,)  # a latent and that of a picture
# Stable Diffusion 2's kinds of prediction are told by the deviation of these offsets, as in ComfyUI.
PREDICTION_MARK, LEAST_DEVIATION = "output_blocks.11.1.transformer_blocks.0.norm1.bias", 0.09
LINEAR_LAYER = "output_blocks.11.1.proj_in.weight"
NOT_SAVED = frozenset({"clip_l.transformer.text_projection.weight", "clip_l.logit_scale"})


class SD15(supported_models_base.BASE):
    """Stable Diffusion 1.x of any width: convolutional projections, no vector conditioning, CLIP-L."""

    latent_format: Any = latent_formats.SD15
    memory_usage_factor = 1.0
    input_channels = PLAIN_CHANNELS

    @classmethod
    def matches(cls, unet_config: Mapping[str, Any], state_dict: Mapping[str, Any] | None = None, unet_key_prefix: str = "") -> bool:
        return (
            not unet_config.get("use_linear_in_transformer")
            and unet_config.get("adm_in_channels") is None
            and unet_config.get("context_dim") is not None
            and unet_config.get("in_channels") in cls.input_channels
        )

    def clip_target(self, state_dict: Mapping[str, Any] | None = None) -> supported_models_base.ClipTarget:
        """CLIP-L, unprojected pooled output."""
        return supported_models_base.ClipTarget(sd1_clip.SD1Tokenizer, sd1_clip.SD1ClipModel)

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"clip_l": ("cond_stage_model.transformer.",)}

    def process_clip_state_dict_for_saving(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """CLIP-L under ``cond_stage_model.``."""
        kept = {key: tensor for key, tensor in state_dict.items() if key not in NOT_SAVED}
        return comfy.utils.state_dict_prefix_replace(kept, {"clip_l.": "cond_stage_model."})


class SD20(supported_models_base.BASE):
    """Stable Diffusion 2.x of any width: linear projections, no vector conditioning, CLIP-H."""

    latent_format: Any = latent_formats.SD15
    memory_usage_factor = 1.0
    vector_widths: Sequence[int | None] = (None,)

    @classmethod
    def matches(cls, unet_config: Mapping[str, Any], state_dict: Mapping[str, Any] | None = None, unet_key_prefix: str = "") -> bool:
        return (
            bool(unet_config.get("use_linear_in_transformer"))
            and unet_config.get("adm_in_channels") in cls.vector_widths
            and unet_config.get("context_dim") is not None
            and unet_config.get("in_channels") in PLAIN_CHANNELS
        )

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """Velocity where a norm of the last block says so: of networks that were trained for it, its offsets vary more."""
        mark = state_dict.get(prefix + PREDICTION_MARK)
        if mark is not None and mark.device.type != "meta" and self.unet_config["in_channels"] == PLAIN_CHANNELS[0]:
            return model_base.ModelType.V_PREDICTION if mark.float().std(correction=0) > LEAST_DEVIATION else model_base.ModelType.EPS
        return super().model_type(state_dict, prefix)

    def clip_target(self, state_dict: Mapping[str, Any] | None = None) -> supported_models_base.ClipTarget:
        """CLIP-H."""
        return sd2_clip.sd2_target(())

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"clip_h": ("cond_stage_model.model.", "conditioner.embedders.0.model.")}

    def process_clip_state_dict_for_saving(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """CLIP-H in open_clip's names under ``cond_stage_model.model.``."""
        clip_h = comfy.utils.state_dict_prefix_replace(dict(state_dict), {"clip_h.transformer.": ""}, filter_keys=True)
        return {self.text_encoder_parts()["clip_h"][0] + key: tensor for key, tensor in to_open_clip(clip_h).items()}


class _SD21Unclip(SD20):
    """Stable Diffusion 2.1 that draws after pictures, whose image encoder is in the file."""

    clip_vision_prefix = "embedder.model.visual."
    width: int  # of what the encoder sees

    def get_model(self, state_dict: Mapping[str, Any], prefix: str = "", device: torch.device | None = None) -> model_base.BaseModel:
        """A new model without weights."""
        noise = {"noise_schedule_config": noise_aug_modules.USUAL_SCHEDULE, "timestep_dim": self.width}
        return model_base.SD21UNCLIP(self, noise, self.model_type(state_dict, prefix), device)


class SD21UnclipL(_SD21Unclip):
    """With CLIP-L's image encoder."""

    vector_widths, width = (1536,), 768


class SD21UnclipH(_SD21Unclip):
    """With CLIP-H's."""

    vector_widths, width = (2048,), 1024


class _XLFamily(supported_models_base.BASE):
    """What SDXL's base and refiner share: linear projections, no attention at full resolution, pooled text and sizes as vector."""

    latent_format: Any = latent_formats.SDXL
    sizes: int

    @classmethod
    def pooled_width(cls, unet_config: Mapping[str, Any]) -> int | None:
        """Width of the pooled text in the vector conditioning, None when the network is none of this kind."""
        vector, depths = unet_config.get("adm_in_channels"), unet_config.get("transformer_depth")
        if vector is None or not unet_config.get("use_linear_in_transformer") or not depths or depths[0] or not unet_config["context_dim"]:
            return None
        return vector - cls.sizes * SIZE_EMBEDDING

    def process_clip_state_dict_for_saving(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """CLIP-L under ``conditioner.embedders.0``, CLIP-G in open_clip's names under the last embedder."""
        clip_l = {key: tensor for key, tensor in state_dict.items() if key.startswith("clip_l.") and key not in NOT_SAVED}
        clip_g = comfy.utils.state_dict_prefix_replace(dict(state_dict), {"clip_g.transformer.": ""}, filter_keys=True)
        saved = comfy.utils.state_dict_prefix_replace(clip_l, {"clip_l.": "conditioner.embedders.0."})
        return saved | {self.text_encoder_parts()["clip_g"][0] + key: tensor for key, tensor in to_open_clip(clip_g).items()}


class SDXLRefiner(_XLFamily):
    """SDXL's second stage: CLIP-G alone and five sizes."""

    memory_usage_factor = 1.0
    sizes = 5

    @classmethod
    def matches(cls, unet_config: Mapping[str, Any], state_dict: Mapping[str, Any] | None = None, unet_key_prefix: str = "") -> bool:
        pooled = cls.pooled_width(unet_config)
        return pooled is not None and unet_config["context_dim"] == pooled

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.SDXLRefiner

    def clip_target(self, state_dict: Mapping[str, Any] | None = None) -> supported_models_base.ClipTarget:
        """CLIP-G."""
        return supported_models_base.ClipTarget(sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLRefinerClipModel)

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"clip_g": ("conditioner.embedders.0.model.",)}


class SDXL(_XLFamily):
    """SDXL: CLIP-L and CLIP-G, six sizes; also its v-prediction and EDM variants (Playground 2.5)."""

    memory_usage_factor = 0.8
    sizes = 6
    input_channels = PLAIN_CHANNELS

    @classmethod
    def matches(cls, unet_config: Mapping[str, Any], state_dict: Mapping[str, Any] | None = None, unet_key_prefix: str = "") -> bool:
        pooled = cls.pooled_width(unet_config)
        return pooled is not None and 0 < pooled < unet_config["context_dim"] and unet_config.get("in_channels") in cls.input_channels

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """Velocity or EDM for files that carry the marks of such a training, else noise."""
        if "edm_mean" in state_dict and "edm_std" in state_dict:
            self.latent_format = latent_formats.SDXL_Playground_2_5()
            self.sampling_settings |= {"sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002}
            return model_base.ModelType.EDM
        if "edm_vpred.sigma_max" in state_dict:
            self.sampling_settings |= {
                name: float(state_dict[f"edm_vpred.{name}"].item())
                for name in ("sigma_max", "sigma_min")
                if f"edm_vpred.{name}" in state_dict
            }
            return model_base.ModelType.V_PREDICTION_EDM
        if "v_pred" in state_dict:
            self.sampling_settings["zsnr"] = "ztsnr" in state_dict
            return model_base.ModelType.V_PREDICTION
        return super().model_type(state_dict, prefix)

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.SDXL

    def clip_target(self, state_dict: Mapping[str, Any] | None = None) -> supported_models_base.ClipTarget:
        """CLIP-L and CLIP-G."""
        return supported_models_base.ClipTarget(sdxl_clip.SDXLTokenizer, sdxl_clip.SDXLClipModel)

    def text_encoder_parts(self) -> dict[str, tuple[str, ...]]:
        return {"clip_l": ("conditioner.embedders.0.transformer.",), "clip_g": ("conditioner.embedders.1.model.",)}


class _PrunedXL(SDXL):
    """SDXL with fewer layers, told by its transformers: of each residual block of the first half as many as ``depths`` says."""

    depths: Sequence[int]

    @classmethod
    def matches(cls, unet_config: Mapping[str, Any], state_dict: Mapping[str, Any] | None = None, unet_key_prefix: str = "") -> bool:
        return super().matches(unet_config, state_dict, unet_key_prefix) and list(unet_config["transformer_depth"]) == list(cls.depths)


class SSD1B(_PrunedXL):
    """Segmind's of half the size."""

    depths = (0, 0, 2, 2, 4, 4)


class Segmind_Vega(_PrunedXL):  # noqa: N801 - ComfyUI's name
    """Segmind's of less than a third."""

    depths = (0, 0, 1, 1, 2, 2)


class KOALA_700M(_PrunedXL):  # noqa: N801 - ComfyUI's name
    """ETRI's smaller one."""

    depths = (0, 2, 5)


class KOALA_1B(_PrunedXL):  # noqa: N801 - ComfyUI's name
    """ETRI's larger one."""

    depths = (0, 2, 6)


class SD15_instructpix2pix(SD15):  # noqa: N801 - ComfyUI's name
    """Stable Diffusion 1.x that changes a picture by an instruction."""

    input_channels = GUIDED_CHANNELS

    def inpaint_model(self) -> bool:
        """No: the further channels are a picture's latent."""
        return False

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.SD15_instructpix2pix


class SDXL_instructpix2pix(SDXL):  # noqa: N801 - ComfyUI's name
    """SDXL that does."""

    input_channels = GUIDED_CHANNELS

    def inpaint_model(self) -> bool:
        """No: the further channels are a picture's latent."""
        return False

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.SDXL_instructpix2pix


class LotusD(supported_models_base.BASE):
    """Lotus: Stable Diffusion 2's network, which turns a picture's latent into that of its depth or normals."""

    latent_format: Any = latent_formats.SD15
    memory_usage_factor = 1.0
    task_width = 4

    @classmethod
    def matches(cls, unet_config: Mapping[str, Any], state_dict: Mapping[str, Any] | None = None, unet_key_prefix: str = "") -> bool:
        is_linear, vector = unet_config.get("use_linear_in_transformer"), unet_config.get("adm_in_channels")
        return bool(is_linear) and vector == cls.task_width and unet_config.get("in_channels") in PLAIN_CHANNELS[:1]

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """A picture to a picture."""
        return model_base.ModelType.IMG_TO_IMG

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.Lotus


class SVD_img2vid(supported_models_base.BASE):  # noqa: N801 - ComfyUI's name
    """Stable Video Diffusion of any width: a network over frames, and the image encoder in the file."""

    latent_format: Any = latent_formats.SD15
    sampling_settings = {"sigma_max": 700.0, "sigma_min": 0.002}
    clip_vision_prefix = "conditioner.embedders.0.open_clip.model.visual."
    vector_width = 3 * SIZE_EMBEDDING

    @classmethod
    def matches(cls, unet_config: Mapping[str, Any], state_dict: Mapping[str, Any] | None = None, unet_key_prefix: str = "") -> bool:
        is_video, vector = unet_config.get("use_temporal_attention"), unet_config.get("adm_in_channels")
        return bool(is_video) and vector == cls.vector_width and unet_config.get("in_channels") in GUIDED_CHANNELS

    def inpaint_model(self) -> bool:
        """No: the further channels are a picture's latent."""
        return False

    def model_type(self, state_dict: Mapping[str, Any], prefix: str = "") -> model_base.ModelType:
        """Velocity with EDM's levels."""
        return model_base.ModelType.V_PREDICTION_EDM

    def model_class(self) -> type[model_base.BaseModel]:
        return model_base.SVD_img2vid


class SDPose(LotusD):
    """SDPose: Lotus' network, whose features a head makes maps of a body's points of."""

    @classmethod
    def matches(cls, unet_config: Mapping[str, Any], state_dict: Mapping[str, Any] | None = None, unet_key_prefix: str = "") -> bool:
        return "heatmap_head" in unet_config and super().matches(unet_config, state_dict, unet_key_prefix)


_pruned: list[type[supported_models_base.BASE]] = [SSD1B, Segmind_Vega, KOALA_700M, KOALA_1B]
_unets: list[type[supported_models_base.BASE]] = [
    SVD_img2vid,
    SD15,
    SD20,
    SD21UnclipL,
    SD21UnclipH,
    SDXLRefiner,
    *_pruned,
    SDXL,
    SD15_instructpix2pix,
    SDXL_instructpix2pix,
    SDPose,
    LotusD,
]
models: list[type[supported_models_base.BASE]] = [*_unets, *registry.configurations()]
SUPPORTED_FAMILIES = ", ".join(
    (
        "Stable Diffusion 1.x and SDXL (4 input channels, 9 for inpainting, 8 for InstructPix2Pix)",
        "Stable Diffusion 2.x (4 input channels, 9 for inpainting) and its unCLIP models",
        "SDXL Refiner",
        "Lotus and SDPose",
        "Stable Video Diffusion",
        *(family.name for family in registry.FAMILIES),
    )
)
DETECTION_VALUES = ("edm_vpred.sigma_max", "edm_vpred.sigma_min")
MARKED_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "")


def detection_values(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The tensors of a file with *shapes* whose values tell of what kind its model is."""
    found = [key for key in DETECTION_VALUES if key in shapes]
    for prefix in MARKED_PREFIXES:
        if prefix + PREDICTION_MARK in shapes and len(shapes.get(prefix + LINEAR_LAYER, ())) == 2:  # as Stable Diffusion 2 has it
            found.append(prefix + PREDICTION_MARK)
    return found


__getattr__, __dir__ = placeholders(
    __name__,
    "models of kinds that are not supported",
    "SV3D_u:SVD_img2vid SV3D_p:SV3D_u Stable_Zero123 SD_X4Upscaler:SD20 Stable_Cascade_C Stable_Cascade_B:Stable_Cascade_C "
    "Flux=comfy.dit.flux FluxInpaint=comfy.dit.flux FluxSchnell=comfy.dit.flux "
    "SD3=comfy.dit.sd3 LongCatImage=comfy.dit.flux Chroma=comfy.dit.chroma Flux2=comfy.dit.flux2 "
    "QwenImage=comfy.dit.qwen_image Lumina2=comfy.dit.lumina ZImage=comfy.dit.lumina "
    "QwenImage21=comfy.dit.qwen_image21 Krea2=comfy.dit.krea2 MageFlow=comfy.dit.mage_flow "
    "WAN21_CausalAR_T2V=comfy.dit.wan "
    "WAN21_T2V=comfy.dit.wan WAN21_I2V=comfy.dit.wan WAN21_FunControl2V=comfy.dit.wan WAN21_Camera=comfy.dit.wan "
    "WAN22_Camera=comfy.dit.wan WAN21_Vace=comfy.dit.wan WAN22_T2V=comfy.dit.wan WAN_Animate2=comfy.dit.wan "
    "HunyuanVideo15=comfy.dit.hunyuan_video HunyuanVideo15_SR_Distilled=comfy.dit.hunyuan_video "
    "CosmosT2IPredict2=comfy.dit.cosmos CosmosI2VPredict2=comfy.dit.cosmos Anima=comfy.dit.cosmos HiDream=comfy.dit.hidream "
    "StableAudio=comfy.dit.stable_audio StableAudio3=comfy.dit.stable_audio "
    "SAM3=comfy.dit.sam3 SAM31=comfy.dit.sam3 RT_DETR_v4=comfy.dit.rt_detr "
    "AuraFlow PixArtAlpha PixArtSigma:PixArtAlpha HunyuanDiT HunyuanDiT1:HunyuanDiT GenmoMochi "
    "LTXV=comfy.dit.ltx LTXAV=comfy.dit.ltx HunyuanVideo=comfy.dit.hunyuan_video "
    "HunyuanVideoI2V=comfy.dit.hunyuan_video HunyuanVideoSkyreelsI2V=comfy.dit.hunyuan_video "
    "SeedVR2=comfy.dit.restoring.seedvr CosmosT2V=comfy.dit.cosmos CosmosI2V=comfy.dit.cosmos ZImagePixelSpace:ZImage "
    "WAN21_HuMo=comfy.dit.wan WAN22_S2V=comfy.dit.wan WAN22_Animate=comfy.dit.wan WAN21_FlowRVS:WAN21_T2V "
    "WAN21_SCAIL=comfy.dit.wan WAN21_SCAIL2=comfy.dit.wan Hunyuan3Dv2 Hunyuan3Dv2_1:Hunyuan3Dv2 Hunyuan3Dv2mini:Hunyuan3Dv2 HiDreamO1 "
    "ACEStep=comfy.dit.ace ACEStep15=comfy.dit.ace15 Omnigen2=comfy.dit.omnigen Boogu=comfy.dit.omnigen "
    "ChromaRadiance:Chroma HunyuanImage21:HunyuanVideo HunyuanImage21Refiner:HunyuanVideo "
    "Kandinsky5=comfy.dit.kandinsky5 Kandinsky5Image=comfy.dit.kandinsky5 ErnieImage=comfy.dit.ernie "
    "CogVideoX_T2V CogVideoX_I2V:CogVideoX_T2V CogVideoX_Inpaint:CogVideoX_T2V "
    "MiniMaxH3=comfy.dit.minimax Ideogram4=comfy.dit.ideogram4 Flux3=comfy.dit.flux3 "
    "PixelDiTT2I=comfy.dit.pixeldit PiD=comfy.dit.pixeldit",
    base="supported_models_base.BASE",
)
