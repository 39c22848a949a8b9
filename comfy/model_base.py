"""A diffusion model with everything the sampler asks of it: input scaling, conditioning, latent format, memory estimate."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

import comfy.conds
import comfy.latent_formats
import comfy.model_management
import comfy.ops
import comfy.patcher_extension
import comfy.utils
from comfy import made_by
from comfy.families.guiding_picture import IP2P
from comfy.families.timestep_embedding import Timestep
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.ldm.modules.encoders.noise_aug_modules import sdxl_pooled
from comfy.model_types import ModelType, model_sampling
from comfy.placeholders import placeholders
from comfy.units import MIB

CONTEXT_WIDTHS = tuple(
    "context_in_dim joint_attention_dim cap_feat_dim text_dim text_hidden_dim cond_token_dim context_dim crossattn_emb_channels "
    "in_text_dim".split()
)  # in the unet_config of one family or another
BLANK_LATENT = (0.8223, -0.6876, 0.6364, 0.1380)  # a mid-grey picture in Stable Diffusion's latent space


def convert_tensor(extra: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """*extra* on *device*; floating tensors also in *dtype*. Anything that is not a tensor comes back unchanged."""
    if not hasattr(extra, "dtype"):
        return extra
    integral = extra.dtype in (torch.int, torch.long)
    return comfy.model_management.cast_to_device(extra, device, None if integral else dtype)


class BaseModel(torch.nn.Module):
    """A network (``diffusion_model``) with its sampling object, latent format and configuration.

    The paths of its parameters are ComfyUI's weight names ("diffusion_model.input_blocks…"). Weights are meta tensors until
    :meth:`load_model_weights`.
    """

    diffusion_model: Any
    source_name = ""  # the file it comes from

    def __init__(
        self,
        model_config: Any,
        model_type: ModelType = ModelType.EPS,
        device: torch.device | None = None,
        unet_model: Callable[..., torch.nn.Module] = UNetModel,
    ) -> None:
        super().__init__()
        self.model_config = model_config
        self.latent_format = model_config.latent_format
        self.manual_cast_dtype: torch.dtype | None = model_config.manual_cast_dtype
        self.device = device
        self.current_patcher: Any = None
        unet_config = model_config.unet_config
        if not unet_config.get("disable_unet_model_creation", False):
            operations = model_config.custom_operations
            if operations is None:
                operations = comfy.ops.pick_operations(unet_config.get("dtype"), self.manual_cast_dtype)
            self.diffusion_model = unet_model(**unet_config, device=device, operations=operations)
            self.diffusion_model.requires_grad_(False).eval()
        self.model_type = model_type
        self.model_sampling = model_sampling(model_config, model_type)
        self.latent_shapes: list[Any] | None = None  # of the kinds that the latent being sampled is packed from
        self.adm_channels = unet_config.get("adm_in_channels") or 0
        self.concat_keys: tuple[str, ...] = ()
        self.memory_usage_factor = model_config.memory_usage_factor
        self.memory_usage_factor_conds: tuple[str, ...] = ()
        self.memory_usage_shape_process: dict[str, Callable[[Any], Any]] = {}

    def apply_model(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        c_concat: torch.Tensor | None = None,
        c_crossattn: torch.Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """The denoised latent for noisy latent *x* at sigmas *t* (one per batch item), through the APPLY_MODEL wrappers."""
        options = {} if transformer_options is None else transformer_options
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.APPLY_MODEL, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._apply_model, self, wrappers)
        return executor.execute(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def _apply_model(
        self,
        x: torch.Tensor,
        t: torch.Tensor,
        c_concat: torch.Tensor | None = None,
        c_crossattn: torch.Tensor | None = None,
        control: Any = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        dtype = self.get_dtype_inference()
        network_input = self.model_sampling.calculate_input(t, x)
        device = network_input.device
        if c_concat is not None:
            extra_channels = comfy.model_management.cast_to_device(c_concat, device, network_input.dtype)
            network_input = torch.cat([network_input, extra_channels], dim=1)
        context = c_crossattn
        if context is not None:
            context = comfy.model_management.cast_to_device(context, device, dtype)
        extras = {
            name: [convert_tensor(item, dtype, device) for item in value]
            if isinstance(value, list)
            else convert_tensor(value, dtype, device)
            for name, value in kwargs.items()
        }
        timestep = self.process_timestep(self.model_sampling.timestep(t).float(), x=x, **extras)
        network_input = network_input.to(dtype)
        if "latent_shapes" in extras:  # several latents in one flat tensor
            network_input = comfy.utils.unpack_latents(network_input, extras.pop("latent_shapes"))
        output = self.diffusion_model(
            network_input, timestep, context=context, control=control, transformer_options=dict(transformer_options or {}), **extras
        )
        if not torch.is_tensor(output):
            output = comfy.utils.pack_latents(output)[0]
        return self.model_sampling.calculate_denoised(t, output.float(), x)

    def process_timestep(self, timestep: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """A hook for families that change the network's time input."""
        return timestep

    def get_dtype(self) -> torch.dtype:
        """The dtype of the weights as kept."""
        return self.diffusion_model.dtype

    def get_dtype_inference(self) -> torch.dtype:
        """The dtype the network computes in."""
        return self.get_dtype() if self.manual_cast_dtype is None else self.manual_cast_dtype

    def encode_adm(self, **kwargs: Any) -> torch.Tensor | None:
        """The vector conditioning for the sampler's *kwargs*, or None for families without one."""
        return None

    def concat_cond(self, **kwargs: Any) -> torch.Tensor | None:
        """The channels an inpainting network takes beside the latent, or None for other networks."""
        if not self.concat_keys:
            return None
        noise, device = kwargs["noise"], kwargs["device"]
        latent = kwargs.get("concat_latent_image")
        latent = kwargs.get("latent_image") if latent is None else self.process_latent_in(latent)
        mask = kwargs.get("concat_mask", kwargs.get("denoise_mask"))
        if latent is not None:
            if latent.shape[1:] != noise.shape[1:]:
                latent = comfy.utils.common_upscale(latent, noise.shape[-1], noise.shape[-2], "bilinear", "center")
                latent = latent if noise.ndim < 5 else _with_frames(latent, noise.shape[2])
            latent = comfy.utils.resize_to_batch_size(latent, len(noise)).to(device)
        if mask is not None:
            mask = self._concat_mask(mask, noise).to(device)
        return torch.cat([self._concat_part(key, latent, mask, noise) for key in self.concat_keys], dim=1)

    @staticmethod
    def _concat_mask(mask: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        if mask.ndim == noise.ndim:
            mask = mask[:, :1]
        mask = mask.reshape(-1, 1, *mask.shape[-(noise.ndim - 2) :])
        if mask.shape[-2:] != noise.shape[-2:]:
            mask = comfy.utils.common_upscale(mask, noise.shape[-1], noise.shape[-2], "bilinear", "center")
        return comfy.utils.resize_to_batch_size(mask.round(), len(noise))

    def _concat_part(self, key: str, latent: torch.Tensor | None, mask: torch.Tensor | None, noise: torch.Tensor) -> torch.Tensor:
        if key == "concat_image":
            return torch.zeros_like(noise) if latent is None else latent
        if key == "masked_image":
            return self.blank_inpaint_image_like(noise) if mask is None or latent is None else latent
        if key == "mask":
            return torch.ones_like(noise)[:, :1] if mask is None else mask
        if key == "mask_inverted":
            return torch.zeros_like(noise)[:, :1] if mask is None else 1.0 - mask
        raise ValueError(f"unknown concat key {key!r}; known: concat_image, masked_image, mask, mask_inverted")

    def blank_inpaint_image_like(self, latent_image: torch.Tensor) -> torch.Tensor:
        """A latent of *latent_image*'s shape that decodes to mid-grey."""
        return latent_image.new_tensor(BLANK_LATENT).view(1, -1, 1, 1).expand(latent_image.shape).clone()

    def set_inpaint(self) -> None:
        """Take a mask and the masked picture as extra input channels."""
        self.concat_keys = ("mask", "masked_image")

    def resize_cond_for_context_window(
        self, cond_key: str, cond_value: Any, window: Any, x_in: torch.Tensor, device: Any, retain_index_list: Sequence[int] = ()
    ) -> Any:
        """What :meth:`extra_conds` gave as *cond_key*, cut to *window* of *x_in*; None where its size says how (see ``slice_cond``)."""
        return None

    def extra_conds(self, **kwargs: Any) -> dict[str, comfy.conds.CONDRegular]:
        """What the network needs besides latent and time, as batchable conditioning."""
        conds: dict[str, comfy.conds.CONDRegular] = {}
        concat = self.concat_cond(**kwargs)
        if kwargs.get("noise_concat") is not None:
            concat = kwargs["noise_concat"]
        if concat is not None:
            conds["c_concat"] = comfy.conds.CONDNoiseShape(concat)
        adm = self.encode_adm(**kwargs)
        if adm is not None:
            conds["y"] = comfy.conds.CONDRegular(adm)
        if kwargs.get("cross_attn") is not None:
            made_by.check_context(kwargs["cross_attn"], self.context_width(), self.said())
        for source, target in (("cross_attn", "c_crossattn"), ("cross_attn_controlnet", "crossattn_controlnet")):
            if kwargs.get(source) is not None:
                conds[target] = comfy.conds.CONDCrossAttn(kwargs[source])
        return conds

    def context_width(self) -> int | None:
        """Values per token of the text that the network takes; None where its configuration does not say."""
        return next((self.model_config.unet_config[name] for name in CONTEXT_WIDTHS if name in self.model_config.unet_config), None)

    def said(self) -> str:
        """The model in words, with its file."""
        return f"the diffusion model {self.source_name}".rstrip()

    def extra_conds_shapes(self, **kwargs: Any) -> dict[str, Any]:
        """Shapes of :meth:`extra_conds` that count in the memory estimate."""
        return {}

    def load_model_weights(self, sd: Any, unet_prefix: str = "", assign: bool = False) -> "BaseModel":
        """Give the network the weights of *sd* below *unet_prefix*; used entries are removed from a dict.

        *sd* is a state dict in ComfyUI's names or a weight source (:mod:`comfy.families.weight_source`). Weights whose
        dtype is already the kept one become views of *sd*'s tensors. Raises ``ModelFileError`` when tensors are missing or
        have another shape.
        """
        self.diffusion_model.load_weights(sd, unet_prefix)
        return self

    def process_latent_in(self, latent: torch.Tensor) -> torch.Tensor:
        """The sampler's latent for an autoencoder latent. Raises ``ValueError`` for one of another family."""
        made_by.check_latent(latent, self.latent_format.latent_channels, self.said())
        return self.latent_format.process_in(latent)

    def process_latent_out(self, latent: torch.Tensor) -> torch.Tensor:
        """The autoencoder's latent for a sampler latent."""
        return self.latent_format.process_out(latent)

    def state_dict_for_saving(
        self,
        unet_state_dict: dict[str, Any],
        clip_state_dict: dict[str, Any] | None = None,
        vae_state_dict: dict[str, Any] | None = None,
        clip_vision_state_dict: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """One checkpoint in the published key layout from the parts' state dicts in ComfyUI's names."""
        config = self.model_config
        merged = config.process_unet_state_dict_for_saving(unet_state_dict)
        if self.model_type == ModelType.V_PREDICTION:
            merged["v_pred"] = torch.tensor([])
        for part, process in (
            (clip_state_dict, config.process_clip_state_dict_for_saving),
            (vae_state_dict, config.process_vae_state_dict_for_saving),
            (clip_vision_state_dict, config.process_clip_vision_state_dict_for_saving),
        ):
            if part is not None:
                merged.update(process(part))
        return merged

    def scale_latent_inpaint(self, sigma: torch.Tensor, noise: torch.Tensor, latent_image: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The kept part of an inpainted latent at noise level *sigma*."""
        return self.model_sampling.noise_scaling(sigma.reshape(sigma.shape[0], *(1,) * (noise.ndim - 1)), noise, latent_image)

    def memory_required(self, input_shape: Sequence[int], cond_shapes: Mapping[str, Any] | None = None) -> float:
        """Bytes of working memory for one call on a latent batch of *input_shape*."""
        shapes = [input_shape]
        for name in self.memory_usage_factor_conds:
            shape = (cond_shapes or {}).get(name)
            process = self.memory_usage_shape_process.get(name)
            if shape:
                shapes += [process(item) for item in shape] if process else shape
        area = sum(shape[0] * math.prod(shape[2:]) for shape in shapes)
        management = comfy.model_management
        if management.xformers_enabled() or management.pytorch_attention_flash_attention():
            per_element = management.dtype_size(self.get_dtype_inference()) * 0.01
        else:
            per_element = 0.15
        return area * per_element * self.memory_usage_factor * MIB


def _with_frames(video: torch.Tensor, frames: int) -> torch.Tensor:
    """*video* (B x C x frames x rows x columns) cut to *frames*, or followed by empty ones."""
    return torch.nn.functional.pad(video[:, :, :frames], (0, 0, 0, 0, 0, max(0, frames - video.shape[2])))


class SizeConditionedModel(BaseModel):
    """A model whose vector conditioning is the pooled text followed by embedded picture sizes."""

    def __init__(self, model_config: Any, model_type: ModelType = ModelType.EPS, device: torch.device | None = None) -> None:
        super().__init__(model_config, model_type, device=device)
        self.embedder = Timestep(256)

    def size_conditioning(self, kwargs: Mapping[str, Any]) -> list[float]:
        """The scalars to embed, in the order the network was trained with."""
        raise NotImplementedError

    def encode_adm(self, **kwargs: Any) -> torch.Tensor:
        """Pooled text (batch x width), or what unCLIP conditioning has in its place, followed by the embedded sizes."""
        pooled = sdxl_pooled(kwargs)
        embedded = self.embedder(torch.tensor(self.size_conditioning(kwargs), dtype=torch.float32)).flatten()
        return torch.cat([pooled.to(embedded.device), embedded.expand(len(pooled), -1)], dim=1)


class SDXL(SizeConditionedModel):
    """Stable Diffusion XL: pooled text and six picture sizes as vector conditioning."""

    def size_conditioning(self, kwargs: Mapping[str, Any]) -> list[float]:
        """Original height and width, crop top and left, target height and width, in pixels."""
        width, height = kwargs.get("width", 768), kwargs.get("height", 768)
        return [
            height,
            width,
            kwargs.get("crop_h", 0),
            kwargs.get("crop_w", 0),
            kwargs.get("target_height", height),
            kwargs.get("target_width", width),
        ]


class SDXLRefiner(SizeConditionedModel):
    """SDXL's second stage: an aesthetic score takes the place of the target size."""

    def size_conditioning(self, kwargs: Mapping[str, Any]) -> list[float]:
        """Original height and width, crop top and left in pixels, aesthetic score."""
        score = kwargs.get("aesthetic_score", 2.5 if kwargs.get("prompt_type", "") == "negative" else 6)
        return [kwargs.get("height", 768), kwargs.get("width", 768), kwargs.get("crop_h", 0), kwargs.get("crop_w", 0), score]


class Lotus(BaseModel):
    """Lotus: one step from a picture's latent to that of its depth or normals; which task it is, is told as vector conditioning."""

    TASK = (1.0, 0.0)  # dense prediction, as opposed to drawing the picture again

    def encode_adm(self, **kwargs: Any) -> torch.Tensor:
        """The task: sines, then cosines (1 x 4)."""
        task = torch.tensor([self.TASK])
        return torch.cat([task.sin(), task.cos()], dim=1)


class SD15_instructpix2pix(IP2P, BaseModel):  # noqa: N801 - ComfyUI's name
    """InstructPix2Pix of Stable Diffusion 1.x."""


class SDXL_instructpix2pix(IP2P, SDXL):  # noqa: N801 - ComfyUI's name
    """InstructPix2Pix of SDXL. Those trained for velocity with EDM's levels (CosXL Edit) take the picture in the sampler's scale."""

    def process_ip2p_image_in(self, image: torch.Tensor) -> torch.Tensor:
        """The picture's latent as the network takes it."""
        return comfy.latent_formats.SDXL().process_in(image) if self.model_type == ModelType.V_PREDICTION_EDM else image


__getattr__, __dir__ = placeholders(
    __name__,
    "models of kinds that are not supported",
    "CLIPEmbeddingNoiseAugmentation=comfy.ldm.modules.encoders.noise_aug_modules SD21UNCLIP=comfy.unclip_model "
    "SVD_img2vid=comfy.svd_model SV3D_u:comfy.svd_model.SVD_img2vid "
    "QwenImage21=comfy.dit.models.qwen_image21 MageFlow=comfy.dit.models.mage_flow "
    "SV3D_p:comfy.svd_model.SVD_img2vid Stable_Zero123 SD_X4Upscaler Boogu=comfy.dit.models.omnigen Omnigen2=comfy.dit.models.omnigen "
    "StableCascade_C StableCascade_B AuraFlow StableAudio1=comfy.dit.models.stable_audio HunyuanDiT PixArt GenmoMochi "
    "StableAudio3=comfy.dit.models.stable_audio SeedVR2=comfy.dit.models.seedvr "
    "SD3=comfy.dit.models.sd3 Flux=comfy.dit.models.flux Flux2=comfy.dit.models.flux LongCatImage=comfy.dit.models.flux "
    "Chroma=comfy.dit.models.flux Krea2=comfy.dit.models.krea2 QwenImage=comfy.dit.models.qwen_image Lumina2=comfy.dit.models.lumina "
    "WAN21=comfy.dit.models.wan WAN22=comfy.dit.models.wan WAN21_Vace=comfy.dit.models.wan WAN21_Camera=comfy.dit.models.wan "
    "WAN_Animate2=comfy.dit.models.wan WAN22_Animate=comfy.dit.models.wan "
    "HunyuanVideo15=comfy.dit.models.hunyuan_video HunyuanVideo15_SR_Distilled=comfy.dit.models.hunyuan_video "
    "LTXV=comfy.dit.models.ltx LTXAV=comfy.dit.models.ltx HunyuanVideo=comfy.dit.models.hunyuan_video "
    "HunyuanVideoI2V=comfy.dit.models.hunyuan_video HunyuanVideoSkyreelsI2V=comfy.dit.models.hunyuan_video "
    "CosmosVideo=comfy.dit.models.cosmos CosmosPredict2=comfy.dit.models.cosmos Anima=comfy.dit.models.cosmos "
    "ZImagePixelSpace:Lumina2 "
    "WAN21_CausalAR=comfy.dit.models.wan WAN21_HuMo=comfy.dit.models.wan_sound WAN21_FlowRVS:WAN21 "
    "WAN21_SCAIL=comfy.dit.models.wan_scail WAN21_SCAIL2=comfy.dit.models.wan_scail "
    "Hunyuan3Dv2 Hunyuan3Dv2_1 HiDream=comfy.dit.models.hidream HiDreamO1 ChromaRadiance:Chroma "
    "WAN22_S2V=comfy.dit.models.wan_sound ACEStep=comfy.dit.models.ace ACEStep15=comfy.dit.models.ace15 "
    "HunyuanImage21 HunyuanImage21Refiner:HunyuanImage21 ErnieImage=comfy.dit.models.ernie CogVideoX "
    "Kandinsky5=comfy.dit.models.kandinsky5 Kandinsky5Image=comfy.dit.models.kandinsky5 "
    "MiniMaxH3=comfy.dit.models.minimax Ideogram4=comfy.dit.models.ideogram4 Flux3=comfy.dit.models.flux3 "
    "PixelDiTT2I=comfy.dit.models.pixeldit PiD=comfy.dit.models.pixeldit SAM3=comfy.dit.models.detection "
    "RT_DETR_v4=comfy.dit.models.detection",
    base="BaseModel",
)
