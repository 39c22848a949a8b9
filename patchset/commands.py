"""What the tool does to a checkout: check, apply, revert. Each returns lines to print or raises ``PatchsetError``."""

from patchset import journal, record
from patchset.checkout import NEWEST_TESTED, Checkout
from patchset.journal import Journal
from patchset.outcomes import PatchsetError
from patchset.plan import FileChange, Plan, make_plan, require_sound, write_all
from patchset.record import Applied
from patchset.series.definition import Series


def check(checkout: Checkout, chosen: list[Series]) -> tuple[list[str], bool]:
    """One line per anchor, and whether every series could be applied."""
    journal.require_none(checkout)
    lines = [f"ComfyUI {checkout.version_text} in {checkout.root}"]
    if checkout.version[:2] > NEWEST_TESTED:
        lines.append(f"newer than what was tested (0.{NEWEST_TESTED[1]}); the anchors decide")
    sound = True
    for series in chosen:
        plan = make_plan(series, checkout)
        sound = sound and not plan.failures
        lines += [f"{series.name}: {summary(plan)}", *(f"  {outcome}" for outcome in plan.outcomes)]
    return lines, sound


def summary(plan: Plan) -> str:
    """Whether the series fits the checkout, in a few words."""
    if plan.failures:
        return "does not fit"
    return "already applied" if plan.is_noop else "can be applied"


def plans_in_order(checkout: Checkout, chosen: list[Series], with_tests: bool = True) -> list[Plan]:
    """A plan per series, each on top of those before it; raises ``AnchorError`` if one does not fit."""
    plans: list[Plan] = []
    current: dict[str, bytes] = {}
    for series in chosen:
        plan = make_plan(series, checkout, with_tests, current)
        require_sound(plan)
        current |= {change.path: change.after for change in plan.changes if change.after is not None}
        plans.append(plan)
    return plans


def apply(checkout: Checkout, chosen: list[Series], branch: str | None = None, commit: bool = False) -> list[str]:
    """Write every series, all or nothing; with *commit*, one commit each (on a new *branch* if named).

    What an interrupted call left behind is put back first.
    """
    with journal.alone(checkout):
        told = journal.heal(checkout)
        plans = [plan for plan in plans_in_order(checkout, chosen) if not plan.is_noop]
        names = ", ".join(series.name for series in chosen)
        if not plans:
            return [*told, f"{names}: already applied; nothing to do"]
        _require_clean(checkout, plans, commit or branch is not None)
        if branch is not None and checkout.git("branch", "--list", branch):
            raise PatchsetError(f"a branch named {branch} exists already; name another, or delete it")
        before = checkout.git("symbolic-ref", "--short", "HEAD", check=False) if checkout.is_git else None
        start = checkout.git("rev-parse", "HEAD") if checkout.is_git else ""
        done: list[Applied] = []
        with journal.whole_or_not(
            checkout,
            Journal(
                "apply",
                tuple(plan.series.name for plan in plans),
                tuple(plan.series.subject for plan in plans),
                tuple(change for plan in plans for change in plan.changes),
                start,
                branch,
                before or None,
            ),
        ):
            if branch is not None:
                checkout.git("switch", "-q", "-c", branch)
            for plan in plans:
                done.append(_apply_one(checkout, plan, commit, branch, before))
    return [
        *told,
        *(f"{one.series}: applied to {len(one.changes)} files" + (f", commit {one.commit[:12]}" if one.commit else "") for one in done),
    ]


def _apply_one(checkout: Checkout, plan: Plan, commit: bool, branch: str | None, before: str | None) -> Applied:
    real = tuple(change for change in plan.changes if not change.changes_nothing)
    write_all(checkout.root, real)
    applied = Applied(plan.series.name, real, _commit(checkout, plan, real) if commit else None, branch, before)
    record.save(checkout, applied)
    return applied


def _require_clean(checkout: Checkout, plans: list[Plan], needs_git: bool) -> None:
    if not checkout.is_git:
        if needs_git:
            raise PatchsetError(f"{checkout.root} is no git checkout; leave out --branch and --commit, or clone ComfyUI with git")
        return
    changed = set(checkout.changed_files())
    touched = changed if needs_git else changed & {change.path for plan in plans for change in plan.changes}
    if touched:
        raise PatchsetError(f"these files have uncommitted changes: {', '.join(sorted(touched))}. Commit or stash them first.")


def _commit(checkout: Checkout, plan: Plan, changes: tuple[FileChange, ...]) -> str:
    paths = [change.path for change in changes]
    checkout.git("add", "--", *paths)
    checkout.git("commit", "-q", "-m", plan.series.subject, "-m", plan.series.message.strip(), "--", *paths)
    return checkout.git("rev-parse", "HEAD")


def revert(checkout: Checkout, chosen: list[Series]) -> list[str]:
    """Undo what ``apply`` did, newest first: the files become what they were, byte for byte.

    A series that was committed on a branch of its own is left by switching back to the branch before (the new branch stays), unless
    another series on that branch is to stay; one committed elsewhere is undone by a commit. What an interrupted call left is put back
    first.
    """
    with journal.alone(checkout):
        lines = journal.heal(checkout)
        waiting: list[tuple[Series, Applied]] = []
        for series in reversed(chosen):
            applied = record.load(checkout, series.name)
            if applied is None:
                lines.append(f"{series.name}: not applied by this tool; nothing to undo")
            else:
                waiting.append((series, applied))
        known = record.load_all(checkout)
        while waiting:
            # Whichever was applied last has left its files as they are now.
            free = [pair for pair in waiting if all(checkout.read(change.path) == change.after for change in pair[1].changes)]
            following = (free or waiting)[0]
            waiting.remove(following)
            stays = {one.series for one in known if one.branch == following[1].branch} - {series.name for series in chosen}
            lines.append(_undo(checkout, *following, known, leaves_branch=not stays))
    return lines


def _undo(checkout: Checkout, series: Series, applied: Applied, known: list[Applied], leaves_branch: bool) -> str:
    now = {change.path: checkout.read(change.path) for change in applied.changes}
    as_applied = [change for change in applied.changes if now[change.path] == change.after]
    if applied.commit and len(as_applied) < len(applied.changes) and not checkout.has_in_history(applied.commit):
        record.forget(checkout, series.name)
        return f"{series.name}: its commit is not in the checked-out history; nothing to undo"
    # After `git checkout` files are as they were before all series, though not as they were before this one.
    altered = [
        change.path
        for change in applied.changes
        if now[change.path] not in (change.after, change.before) and now[change.path] not in _originals(known, change.path)
    ]
    if altered:
        raise PatchsetError(
            f"{series.name}: changed since it was applied: {', '.join(altered)}. Undo those changes first, "
            "so that nothing of yours is lost."
        )
    if not as_applied:
        record.forget(checkout, series.name)
        return f"{series.name}: not in the checked-out files; nothing to undo"
    head = checkout.git("rev-parse", "HEAD") if checkout.is_git else ""
    if applied.branch and applied.branch_before and head == applied.commit and leaves_branch:
        checkout.git("switch", "-q", applied.branch_before)
        record.forget(checkout, series.name)
        return f"{series.name}: back on {applied.branch_before}; the branch {applied.branch} is kept"
    title = f'Revert "{series.subject}"'
    changes = tuple(FileChange(change.path, change.after, change.before) for change in as_applied)
    with journal.whole_or_not(checkout, Journal("revert", (series.name,), (title,), changes, head)):
        write_all(checkout.root, changes)
        if applied.commit:
            paths = [change.path for change in changes]
            checkout.git("add", "-A", "--", *paths)
            checkout.git("commit", "-q", "-m", title, "--", *paths)
        record.forget(checkout, series.name)
    return f"{series.name}: undone in {len(changes)} files"


def _originals(known: list[Applied], path: str) -> list[bytes | None]:
    """What the file was before any of the *known* series."""
    changes = [change for one in known for change in one.changes if change.path == path]
    afters = [change.after for change in changes]
    return [change.before for change in changes if change.before not in afters]
