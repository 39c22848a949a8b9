"""Totals add up, reasons are counted, and few are kept."""

from comfy.patch_identity.reuse_figures import REASONS_KEPT, ReuseFigures


def test_the_latest_reasons_are_kept_with_their_counts():
    figures = ReuseFigures()
    for reason in ("often", *(str(number) for number in range(REASONS_KEPT - 1))):
        figures.incomparable(reason)
    for reason in ("often", "new"):
        figures.not_kept(reason)
    found = figures.described()
    reasons = found["reasons"]
    assert len(reasons) == REASONS_KEPT and list(reasons)[-2:] == ["often", "new"]
    assert reasons["often"] == 2 and reasons["new"] == 1 and "0" not in reasons
    assert (found["unique"], found["refused"]) == (REASONS_KEPT, 2)


def test_a_hit_that_took_longer_than_it_saved_takes_nothing_back():
    figures = ReuseFigures()
    for seconds in (0.5, -2.0):
        figures.hit(seconds)
    found = figures.described()
    assert (found["hits"], found["saved_seconds"], found["misses"]) == (2, 0.5, 0)
    found["reasons"]["mine"] = 1
    assert figures.described()["reasons"] == {}
