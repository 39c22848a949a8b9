"""Reasons are counted, and few are kept."""

from comfy.patch_identity.reasons import REASONS_KEPT, Reasons


def test_the_latest_reasons_are_kept_with_their_counts():
    reasons = Reasons()
    for reason in ("often", *(str(number) for number in range(REASONS_KEPT - 1)), "often", "new"):
        reasons.note(reason)
    counts = reasons.counts()
    assert len(counts) == REASONS_KEPT and list(counts)[-2:] == ["often", "new"]
    assert counts["often"] == 2 and counts["new"] == 1 and "0" not in counts
