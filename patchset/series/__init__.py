"""The series this tool can apply, by name."""

from patchset.series import linear_signatures, patch_reuse, provider_fixes, ram_model_cache
from patchset.series.definition import Series

SERIES: dict[str, Series] = {
    series.name: series for series in (linear_signatures.SERIES, provider_fixes.SERIES, ram_model_cache.SERIES, patch_reuse.SERIES)
}
