"""Names for changes by conditioning that node packs import; see :mod:`comfy.placeholders`."""

from comfy.placeholders import placeholders

NODE_CLASS_MAPPINGS: dict[str, type] = {}

__getattr__, __dir__ = placeholders(
    __name__,
    "changes by conditioning",
    "PairConditioningSetProperties:object PairConditioningSetPropertiesAndCombine:object ConditioningSetProperties:object "
    "ConditioningSetPropertiesAndCombine:object PairConditioningCombine:object PairConditioningSetDefaultAndCombine:object "
    "ConditioningSetDefaultAndCombine:object SetClipHooks:object ConditioningTimestepsRange:object CreateHookLora:object "
    "CreateHookLoraModelOnly:CreateHookLora CreateHookModelAsLora:object CreateHookModelAsLoraModelOnly:CreateHookModelAsLora "
    "SetHookKeyframes:object CreateHookKeyframe:object CreateHookKeyframesInterpolated:object CreateHookKeyframesFromFloats:object "
    "SetModelHooksOnCond:object CombineHooks:object CombineHooksFour:object CombineHooksEight:object",
)
