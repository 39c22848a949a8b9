"""The kinds, targets and scopes of hooks."""

import enum


class EnumHookMode(enum.Enum):
    """Whether weights that hooks changed are kept for the next switch, which needs memory, or computed again."""

    MinVram = "minvram"
    MaxSpeed = "maxspeed"


class EnumHookType(enum.Enum):
    """The kind of change that a hook makes."""

    Weight = "weight"
    TransformerOptions = "transformer_options"
    AdditionalModels = "add_models"
    ObjectPatch = "object_patch"
    Injections = "add_injections"


class EnumWeightTarget(enum.Enum):
    """The model whose weights a hook changes."""

    Model = "model"
    Clip = "clip"


class EnumHookScope(enum.Enum):
    """Whether a hook acts on all conditioning of a run or only on the conditioning that it is attached to."""

    AllConditioning = "all_conditioning"
    HookedOnly = "hooked_only"
