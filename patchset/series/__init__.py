"""The series this tool can apply, by name."""

from patchset.series import flat_validation, linear_signatures, patch_reuse, provider_fixes, ram_model_cache
from patchset.series.definition import Series

_ALL = (linear_signatures, flat_validation, provider_fixes, ram_model_cache, patch_reuse)
SERIES: dict[str, Series] = {module.SERIES.name: module.SERIES for module in _ALL}
