"""The kinds, targets and scopes of hooks."""

import enum


class EnumHookMode(enum.Enum):
    """Whether weights changed by hooks are kept for the next switch (uses memory) or computed again."""

    MinVram = "minvram"
    MaxSpeed = "maxspeed"


class EnumHookType(enum.Enum):
    """What a hook changes."""

    Weight = "weight"
    TransformerOptions = "transformer_options"
    AdditionalModels = "add_models"
    ObjectPatch = "object_patch"
    Injections = "add_injections"


class EnumWeightTarget(enum.Enum):
    """Whose weights."""

    Model = "model"
    Clip = "clip"


class EnumHookScope(enum.Enum):
    """Whether a hook acts on all conditioning of a run or only on what it is attached to."""

    AllConditioning = "all_conditioning"
    HookedOnly = "hooked_only"
