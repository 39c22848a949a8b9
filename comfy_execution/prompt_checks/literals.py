"""Checks of one literal input against what its node declares."""

import math
from collections.abc import Callable, Mapping
from typing import Any

Problem = dict[str, Any]
LONG_LIST = 20
MAX_BITS = 4096

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
    shown = name.rpartition(".")[2] if is_schema else name
    return problem("required_input_missing", "Required input is missing", shown, {"input_name": name})


def needs_link(name: str, config: tuple[Any, Any], value: Any) -> Problem | None:
    """The error for a constant where only another node's output can go."""
    if not isinstance(config[0], str) or config[0] not in OBJECT_TYPES:
        return None
    message = f"A {config[0]} input takes a link [node_id, slot_index], not a constant"
    return problem(
        "bad_linked_input", message, f"{name}, {_shown(value)}", {"input_name": name, "input_config": config, "received_value": echo(value)}
    )


def conversion_error(name: str, config: tuple[Any, Any], inputs: dict[str, Any]) -> Problem | None:
    """Unwrap and convert the literal ``inputs[name]`` in place; the error if it cannot be converted."""
    value = inputs[name]
    if isinstance(value, Mapping) and "__value__" in value:
        value = inputs[name] = value["__value__"]
    convert = _CONVERSIONS.get(config[0]) if isinstance(config[0], str) else None
    if convert is None:
        return None
    try:
        converted = convert(value)
        if isinstance(converted, float) and not math.isfinite(converted):
            raise ValueError(f"{converted} is not a finite number")
        if isinstance(converted, int) and converted.bit_length() > MAX_BITS:
            raise ValueError("the number has too many digits")
    except (ValueError, TypeError, OverflowError) as error:
        reason = str(error)
        message = f"Failed to convert an input value to a {config[0]} value"
        return problem(
            "invalid_input_type",
            message,
            f"{name}, {_shown(value)}, {reason}",
            {"input_name": name, "input_config": config, "received_value": echo(value), "exception_message": reason},
        )
    inputs[name] = converted
    return None


def check_literal(name: str, config: tuple[Any, Any], value: Any) -> Problem | None:
    """The error if *value* is out of the declared range or not among the declared options."""
    kind, options = config
    if not isinstance(options, Mapping):
        options = {}
    info = {"input_name": name, "input_config": config, "received_value": echo(value)}
    if isinstance(value, int | float):
        smallest, biggest = options.get("min"), options.get("max")
        if smallest is not None and value < smallest:
            return problem("value_smaller_than_min", f"Value {_shown(value)} smaller than min of {smallest}", name, info)
        if biggest is not None and value > biggest:
            return problem("value_bigger_than_max", f"Value {_shown(value)} bigger than max of {biggest}", name, info)
    if isinstance(kind, list | tuple):
        return _check_options(name, config, list(kind), options, value)
    if kind == "COMBO":
        return _check_options(name, config, list(options.get("options") or ()), options, value)
    return None


def _check_options(name: str, config: tuple[Any, Any], allowed: list[Any], options: Mapping[str, Any], value: Any) -> Problem | None:
    chosen = value if options.get("multiselect") and isinstance(value, list) else [value]
    wrong = [one for one in chosen if one not in allowed]
    if not wrong:
        return None
    long = len(allowed) > LONG_LIST
    shown = f"(list of length {len(allowed)})" if long else str(allowed)
    return problem(
        "value_not_in_list",
        "Value not in list",
        f"{name}: {', '.join(map(_shown, wrong))} not in {shown}",
        {"input_name": name, "input_config": None if long else config, "received_value": echo(value)},
    )


def _shown(value: Any) -> str:
    """*value* for a message, cut when it is long."""
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def echo(value: Any) -> Any:
    """*value* as it may be sent back: numbers that JSON cannot carry, alone or in a link, become text."""
    if isinstance(value, list):
        return [echo(part) for part in value] if not any(isinstance(part, list) for part in value) else value
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return _shown(value) if isinstance(value, int) and value.bit_length() > MAX_BITS else value


def problem(kind: str, message: str, details: str, extra_info: dict[str, Any]) -> Problem:
    """One error as ``node_errors`` lists it."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}
