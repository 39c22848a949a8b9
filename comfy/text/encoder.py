"""The text encoder that nodes use: a tokenizer, a model with its patcher, and the options of a prompt."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch

import comfy.model_management
import comfy.model_patcher
import comfy.utils
from comfy import made_by
from comfy.families.weight_source import StateDictSource, WeightSource, most_common_dtype
from comfy.text.kinds import FoundEncoder

log = logging.getLogger(__name__)


def kept_text_dtype(sources: Iterable[WeightSource], options: Mapping[str, Any]) -> torch.dtype:
    """The dtype in which to keep the weights in *sources*: the one that *options* or flags ask for, else one that suits the device."""
    asked = options.get("dtype")
    if asked is not None:
        return asked
    management = comfy.model_management
    return management.text_encoder_dtype(options.get("load_device", management.text_encoder_device()), most_common_dtype(sources))


def kept_part_dtype(found: FoundEncoder, options: Mapping[str, Any]) -> torch.dtype:
    """The dtype in which to keep the weights of one text model: what its file computes in, unless that is larger than the above."""
    own = kept_text_dtype([found.source], options)
    norm = found.kind.norm
    if norm is None or norm not in found.source.shapes() or "dtype" in options:
        return own
    management = comfy.model_management
    return management.pick_weight_dtype(found.source.dtype(norm), own, options.get("load_device", management.text_encoder_device()))


class CLIP:
    """A text encoder (``cond_stage_model``) with its ``tokenizer`` and ``patcher``. Clones share model and tokenizer.

    *state_dict* is a state dict, or a list of them, with the names of the text model; *sources* gives {text model: weight source} instead.
    """

    def __init__(
        self,
        target: Any = None,
        embedding_directory: Any = None,
        no_init: bool = False,
        tokenizer_data: Mapping[str, Any] | None = None,
        parameters: int = 0,
        state_dict: Any = (),
        model_options: Mapping[str, Any] | None = None,
        disable_dynamic: bool = False,
        sources: Mapping[str, WeightSource] | None = None,
    ) -> None:
        if no_init:
            return
        options = model_options or {}
        management = comfy.model_management
        load_device = options.get("load_device", management.text_encoder_device())
        offload_device = options.get("offload_device", management.text_encoder_offload_device())
        state_dicts: list[Any] = [state_dict] if isinstance(state_dict, Mapping) else list(state_dict)
        dtype = kept_text_dtype([StateDictSource(part) for part in state_dicts] if sources is None else sources.values(), options)
        self.cond_stage_model = target.clip(**target.params, device=offload_device, dtype=dtype, model_options=options)
        self.cond_stage_model.eval().requires_grad_(False)
        self._load_weights(sources, state_dicts)
        self.tokenizer = target.tokenizer(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data or {})
        self.patcher = comfy.model_patcher.CoreModelPatcher(self.cond_stage_model, load_device=load_device, offload_device=offload_device)
        self.patcher.is_clip = True
        self.layer_idx: int | None = None
        self.use_clip_schedule = False
        self.apply_hooks_to_conds: Any = None
        self.tokenizer_options: dict[str, Any] = {}
        kept = ", ".join(sorted(map(str, self.cond_stage_model.dtypes)))
        log.info("text encoder: load device %s, offload device %s, kept as %s", load_device, offload_device, kept)

    def _load_weights(self, sources: Mapping[str, WeightSource] | None, state_dicts: Iterable[dict[str, torch.Tensor]]) -> None:
        if sources is not None:
            self.cond_stage_model.load_weights(sources)
            return
        for part in state_dicts:
            _, unexpected = self.load_sd(part)
            if unexpected:
                log.debug("unused text encoder tensors: %s", unexpected)

    def clone(self, disable_dynamic: bool = False) -> "CLIP":
        """A text encoder over the same model that has its own patches and options."""
        copy = CLIP(no_init=True)
        copy.patcher = self.patcher.clone()
        copy.cond_stage_model = self.cond_stage_model
        copy.tokenizer = self.tokenizer
        copy.layer_idx = self.layer_idx
        copy.tokenizer_options = dict(self.tokenizer_options)
        copy.use_clip_schedule = self.use_clip_schedule
        copy.apply_hooks_to_conds = self.apply_hooks_to_conds
        return copy

    def add_patches(self, patches: Mapping[str, Any], strength_patch: float = 1.0, strength_model: float = 1.0) -> Any:
        """Add weight patches; returns the keys that matched."""
        return self.patcher.add_patches(patches, strength_patch, strength_model)

    def set_tokenizer_option(self, option_name: str, value: Any) -> None:
        """Set an option that every later :meth:`tokenize` passes on."""
        self.tokenizer_options[option_name] = value

    def clip_layer(self, layer_idx: int | None) -> None:
        """Take hidden states after layer *layer_idx* (negative: counted from the end); None means the family's default."""
        self.layer_idx = layer_idx

    def tokenize(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Tokenize *text*: {short name of the text model: chunks of (token, weight)}."""
        options = {**self.tokenizer_options, **kwargs.get("tokenizer_options", {})}
        if options:
            kwargs["tokenizer_options"] = options
        return self.tokenizer.tokenize_with_weights(text, return_word_ids, **kwargs)

    def add_hooks_to_dict(self, pooled_dict: dict[str, Any]) -> dict[str, Any]:
        """Put this text encoder's hooks, if any, into *pooled_dict*."""
        if self.apply_hooks_to_conds:
            pooled_dict["hooks"] = self.apply_hooks_to_conds
        return pooled_dict

    def encode_from_tokens(self, tokens: Mapping[str, Any], return_pooled: bool | str = False, return_dict: bool = False) -> Any:
        """Encode *tokens*: hidden states (1 x tokens x width), float32.

        *return_pooled* adds the pooled output, before its projection if it is "unprojected"; *return_dict* returns both in a dict.
        """
        states, pooled, *extras = self._encode(tokens, unprojected=return_pooled == "unprojected")
        made_by.mark(states, getattr(self.cond_stage_model, "source_name", ""))
        if return_dict:
            result = {"cond": states, "pooled_output": pooled, **(extras[0] if extras else {})}
            return self.add_hooks_to_dict(result)
        return (states, pooled) if return_pooled else states

    def encode_from_tokens_scheduled(
        self, tokens: Mapping[str, Any], unprojected: bool = False, add_dict: Mapping[str, Any] | None = None, show_pbar: bool = True
    ) -> list[list[Any]]:
        """Conditioning: a list with [hidden states, {"pooled_output", …, **add_dict}] once, or per keyframe of scheduled hooks."""
        hooks = getattr(self.patcher, "forced_hooks", None)
        if hooks is None or not self.use_clip_schedule:
            result = self.encode_from_tokens(tokens, return_pooled="unprojected" if unprojected else True, return_dict=True)
            states = result.pop("cond")
            return [[states, {**result, **(add_dict or {})}]]
        return self._encode_schedule(tokens, unprojected, add_dict or {}, hooks, show_pbar)

    def _encode_schedule(
        self, tokens: Mapping[str, Any], unprojected: bool, add_dict: Mapping[str, Any], hooks: Any, show_pbar: bool
    ) -> list[list[Any]]:
        keyframes = hooks.get_hooks_for_clip_schedule()
        progress = comfy.utils.ProgressBar(len(keyframes)) if show_pbar else None
        self._prepare(tokens, unprojected)
        hooks.reset()
        self.patcher.patch_hooks(None)
        conditioning = []
        for (start, end), members in keyframes:
            if end < add_dict.get("start_percent", end) or start > add_dict.get("end_percent", start):
                continue
            for hook, keyframe in members:
                hook.hook_keyframe._current_keyframe = keyframe
            self.patcher.patch_hooks(hooks)
            states, pooled, *_ = self.cond_stage_model.encode_token_weights(tokens)
            values = {"pooled_output": pooled, "clip_start_percent": start, "clip_end_percent": end, **add_dict}
            conditioning.append([states, self.add_hooks_to_dict(values)])
            if progress is not None:
                progress.update(1)
            comfy.model_management.throw_exception_if_processing_interrupted()
        hooks.reset()
        return conditioning

    def encode(self, text: str) -> torch.Tensor:
        """The hidden states of a prompt (1 x tokens x width)."""
        return self.encode_from_tokens(self.tokenize(text))

    def _encode(self, tokens: Mapping[str, Any], unprojected: bool) -> tuple[Any, ...]:
        self._prepare(tokens, unprojected)
        return self.cond_stage_model.encode_token_weights(tokens)

    def _prepare(self, tokens: Mapping[str, Any], unprojected: bool) -> None:
        """Set the model's options for one encoding and bring it to its device."""
        model = self.cond_stage_model
        model.reset_clip_options()
        if self.layer_idx is not None:
            model.set_clip_options({"layer": self.layer_idx})
        if unprojected:
            model.set_clip_options({"projected_pooled": False})
        self.load_model(tokens)
        model.set_clip_options({"execution_device": self.patcher.load_device})

    def load_sd(self, sd: dict[str, torch.Tensor], full_model: bool = False) -> tuple[list[str], list[str]]:
        """Load weights of the text models; with *full_model* names begin with that of the text model ("clip_l.transformer.…").

        Returns (missing, unexpected) names. Raises ``IncompleteModelError`` when tensors are missing.
        """
        if not full_model:
            return self.cond_stage_model.load_sd(sd)
        missing: list[str] = []
        unexpected = set(sd)
        for name, _ in self.cond_stage_model.named_children():
            part = comfy.utils.state_dict_prefix_replace(dict(sd), {f"{name}.transformer.": ""}, filter_keys=True)
            if part:
                unexpected -= {f"{name}.transformer.{key}" for key in part}
                getattr(self.cond_stage_model, name).load_sd(part)
            else:
                missing.append(name)
        return missing, sorted(unexpected)

    def get_sd(self) -> dict[str, Any]:
        """The model's present weights, and the data that the tokenizer needs."""
        return {**self.cond_stage_model.state_dict(), **self.tokenizer.state_dict()}

    def state_dict_for_saving(self) -> dict[str, Any]:
        """The weights with this clone's patches applied (load the model first), and the data that the tokenizer needs."""
        return {**self.patcher.model_state_dict(), **self.tokenizer.state_dict()}

    def load_model(self, tokens: Mapping[str, Any] | None = None) -> Any:
        """Bring the model to its device; returns the patcher."""
        estimate = getattr(self.cond_stage_model, "memory_estimation_function", None)
        memory_used = 0 if estimate is None else estimate(tokens or {}, device=self.patcher.load_device)
        comfy.model_management.load_models_gpu([self.patcher], memory_required=memory_used)
        return self.patcher

    def get_key_patches(self) -> Mapping[str, Any]:
        """{weight name: its value and patches}, as :meth:`ModelPatcher.get_key_patches` returns it."""
        return self.patcher.get_key_patches()

    def generate(
        self,
        tokens: Mapping[str, Any],
        do_sample: bool = True,
        max_length: int = 256,
        temperature: float = 1.0,
        top_k: int = 50,
        top_p: float = 0.95,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        presence_penalty: float = 0.0,
    ) -> list[int]:
        """The ids of the tokens that the language model says after *tokens*, :meth:`decode` makes a text of them.

        Options: :class:`comfy.text.generation.Sampling`. Raises ``ValueError`` for a text encoder that is no language model, and
        ``InterruptProcessingException``.
        """
        model = self.cond_stage_model
        if not hasattr(model, "generate"):
            raise ValueError(f"{type(model).__name__} is made of text models that read only; load a language model to generate text")
        model.reset_clip_options()
        self.load_model(tokens)
        model.set_clip_options({"layer": None})
        model.set_clip_options({"execution_device": self.patcher.load_device})
        chances = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
        penalties = {"repetition_penalty": repetition_penalty, "presence_penalty": presence_penalty}
        return model.generate(tokens, do_sample=do_sample, max_length=max_length, **chances, **penalties)

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of vocabulary ids."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def is_dynamic(self) -> bool:
        """Whether the host streams the weights from files on demand."""
        return self.patcher.is_dynamic()
