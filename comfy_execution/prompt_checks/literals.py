"""Checks of one literal input against what its node declares."""

import math
from collections.abc import Callable, Mapping
from itertools import filterfalse, islice
from typing import Any

from comfy_execution.prompt_checks.shown_values import MAX_BITS, brief, echo, shown

Problem = dict[str, Any]
LONG_LIST = 20

# What no JSON value can stand for: these inputs take links only.
OBJECT_TYPES = frozenset(
    {
        "AUDIO",
        "AUDIO_ENCODER",
        "AUDIO_ENCODER_OUTPUT",
        "CLIP",
        "CLIP_VISION",
        "CLIP_VISION_OUTPUT",
        "CONDITIONING",
        "CONTROL_NET",
        "GLIGEN",
        "GUIDER",
        "IMAGE",
        "LATENT",
        "LATENT_UPSCALE_MODEL",
        "LORA_MODEL",
        "MASK",
        "MESH",
        "MODEL",
        "MODEL_PATCH",
        "NOISE",
        "SAMPLER",
        "SIGMAS",
        "STYLE_MODEL",
        "UPSCALE_MODEL",
        "VAE",
        "VIDEO",
        "VOXEL",
    }
)

_CONVERSIONS: dict[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


def required_missing(name: str, is_schema: bool) -> Problem:
    """The error for a required input that the prompt does not give."""
    details = name.rpartition(".")[2] if is_schema else name
    return problem("required_input_missing", "Required input is missing", details, {"input_name": name})


def plain_type(kind: Any) -> str | None:
    """The text of a declared type, None for a list of options. Packs' subclasses of ``str`` may lack a hash, or equal everything."""
    return str.__str__(kind) if isinstance(kind, str) else None


def needs_link(name: str, config: tuple[Any, Any], value: Any) -> Problem | None:
    """The error for a constant where only another node's output can go."""
    kind = plain_type(config[0])
    if kind not in OBJECT_TYPES:
        return None
    message = f"A {kind} input takes a link [node_id, slot_index], not a constant"
    return problem("bad_linked_input", message, f"{name}, {shown(value)}", _info(name, config, value))


def conversion_error(name: str, config: tuple[Any, Any], inputs: dict[str, Any]) -> Problem | None:
    """Unwrap and convert the literal ``inputs[name]`` in place; the error if it cannot be converted."""
    value = inputs[name]
    if isinstance(value, Mapping) and "__value__" in value:
        value = inputs[name] = value["__value__"]
    convert = _CONVERSIONS.get(plain_type(config[0]) or "")
    if convert is None:
        return None
    try:
        converted = convert(value)
        if isinstance(converted, float) and not math.isfinite(converted):
            raise ValueError(f"{converted} is not a finite number")
        if isinstance(converted, int) and converted.bit_length() > MAX_BITS:
            raise ValueError("the number has too many digits")
    except (ValueError, TypeError, OverflowError) as error:
        reason = brief(str(error))
        message = f"Failed to convert an input value to a {config[0]} value"
        return problem(
            "invalid_input_type", message, f"{name}, {shown(value)}, {reason}", _info(name, config, value) | {"exception_message": reason}
        )
    inputs[name] = converted
    return None


def check_literal(name: str, config: tuple[Any, Any], value: Any) -> Problem | None:
    """The error if *value* is out of the declared range or not among the declared options."""
    kind, options = config
    if not isinstance(options, Mapping):
        options = {}
    if isinstance(value, int | float):
        smallest, biggest = options.get("min"), options.get("max")
        if smallest is not None and value < smallest:
            message = f"Value {shown(value)} smaller than min of {smallest}"
            return problem("value_smaller_than_min", message, name, _info(name, config, value))
        if biggest is not None and value > biggest:
            message = f"Value {shown(value)} bigger than max of {biggest}"
            return problem("value_bigger_than_max", message, name, _info(name, config, value))
    if isinstance(kind, list | tuple):
        return _check_options(name, config, kind, options, value)
    if plain_type(kind) == "COMBO":
        allowed = options.get("options")
        return _check_options(name, config, [] if allowed is None else allowed, options, value)
    return None


def _check_options(name: str, config: tuple[Any, Any], allowed: Any, options: Mapping[str, Any], value: Any) -> Problem | None:
    """Whether the options hold *value* is for the list itself to say: packs bring lists that take anything, or look it up elsewhere."""
    chosen = value if options.get("multiselect") and isinstance(value, list) else [value]
    wrong = list(islice(filterfalse(_finder(allowed, len(chosen)), chosen), LONG_LIST))
    if not wrong:
        return None
    long = len(allowed) > LONG_LIST
    choices = f"(list of length {len(allowed)})" if long else str(allowed)
    return problem(
        "value_not_in_list",
        "Value not in list",
        f"{name}: {', '.join(map(shown, wrong))} not in {choices}",
        _info(name, None if long else config, value),
    )


def _finder(allowed: Any, count: int) -> Callable[[Any], bool]:
    """What tells whether a value is among the options; for many values in a plain list of texts it looks each up in the same short time."""
    if count > LONG_LIST and type(allowed) in (list, tuple) and all(type(one) is str for one in allowed):
        texts = frozenset(allowed)
        return lambda value: isinstance(value, str) and value in texts
    return lambda value: value in allowed


def _info(name: str, config: Any, value: Any) -> dict[str, Any]:
    return {"input_name": name, "input_config": config, "received_value": echo(value)}


def problem(kind: str, message: str, details: str, extra_info: dict[str, Any]) -> Problem:
    """One error as ``node_errors`` lists it."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}
