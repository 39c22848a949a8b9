"""What users do with a checkout, at random: the tool's commands between git's and edits, mirrored on a checkout that never saw the tool.

Where the tool refuses, the user follows what it says, and tries again: it must get through. In the end what the tool did is undone, and
both checkouts hold the same files.
"""

import random
import re
import shutil
import subprocess

from patchset import commands, journal
from patchset.checkout import open_checkout
from patchset.outcomes import PatchsetError
from patchset.series.definition import Series
from patchset.statement_transforms import ReplaceStatement

LINES = 60
OURS = {"first": (10, 30), "second": (20,), "third": (24, 40)}
USERS, UPSTREAMS, NEXT_TO_OURS = (15, 35, 45, 50), (5, 55, 27), (11, 41)
NAMES = ("execution.py", "comfy/deep/part.py")
SHARED, BROUGHT = "comfy/new/shared.py", {"first": "comfy/new/first.py", "second": "comfy/second.py", "third": "third/third.py"}
TRIES = 6


def line(number, value):
    return f"line_{number:02} = {value}\n"


def _series(name):
    edits = [(path, "", line(number, number), line(number, 1000 + number)) for path in NAMES for number in OURS[name]]
    files = [("patchset/outcomes.py", BROUGHT[name])] + [("patchset/trees.py", SHARED)] * (name != "second")
    return Series(name, f"Add {name}", "Why and how.", lambda version: [ReplaceStatement(*edit) for edit in edits], (), tuple(files), ())


KNOWN = {name: _series(name) for name in OURS}


def git(root, *arguments, check=True):
    done = subprocess.run(["git", "-C", str(root), *arguments], check=False, capture_output=True, text=True)
    assert not check or done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout.strip() if check else done.returncode == 0


def files_of(root):
    return {
        str(path.relative_to(root)): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(root).parts
    }


class Walk:
    """One user with a checkout (*ours*), its mirror (*plain*) and the place both pull from (*origin*)."""

    def __init__(self, folder, seed):
        self.dice = random.Random(seed)
        self.folder, self.count, self.log = folder, 0, []
        self.origin, self.ours, self.plain = folder / "origin", folder / "ours", folder / "plain"
        self.origin.mkdir(parents=True)
        (self.origin / "comfyui_version.py").write_text('__version__ = "0.30.0"\n')
        for name in NAMES:
            (self.origin / name).parent.mkdir(parents=True, exist_ok=True)
            (self.origin / name).write_text("".join(line(number, number) for number in range(1, LINES)))
        git(self.origin, "init", "-q", "-b", "master")
        self.sign(self.origin)
        git(self.origin, "add", "-A")
        git(self.origin, "commit", "-q", "-m", "start")
        for root in (self.ours, self.plain):
            git(folder, "clone", "-q", str(self.origin), str(root))
            self.sign(root)

    def sign(self, root):
        for key, value in (("user.name", "Ada"), ("user.email", "ada@example.org"), ("gc.auto", "0"), ("maintenance.auto", "false")):
            git(root, "config", key, value)

    def go(self, steps, check_every=25):
        actions = [getattr(self, name) for name in dir(self) if name.startswith("do_")]
        for step in range(steps):
            action = self.dice.choice(actions)
            self.log.append(action.__name__)
            action()
            assert not journal.is_open(open_checkout(self.ours))
            if step % check_every == check_every - 1:
                self.compare()
        self.compare()

    # The tool

    def do_apply(self):
        self.apply(self.some(), commit=False)

    def do_apply_with_commits(self):
        self.apply(self.some(), commit=True)

    def do_apply_on_a_branch(self):
        self.apply(self.some(), branch=f"made-{self.dice.randrange(6)}")

    def do_revert(self):
        self.revert(self.some())

    def do_revert_all(self):
        self.revert(list(KNOWN.values()))

    def do_update(self):
        self.upstream_commits()
        if git(self.ours, "rev-parse", "-q", "--verify", "@{upstream}", check=False):
            self.insist(lambda: commands.update(open_checkout(self.ours), KNOWN))
            self.follow_branch()
            git(self.plain, "pull", "-q", "--no-rebase", "--no-edit")

    def apply(self, series, branch=None, commit=False):
        names = [branch]

        def attempt():
            commands.apply(open_checkout(self.ours), series, names[0], commit, known=KNOWN)

        def another_name():
            self.count += 1
            names[0] = f"made-{self.count}-again"

        self.insist(attempt, another_name)
        self.follow_branch()
        for one in series:
            self.require(one, there=True)

    def revert(self, series):
        self.insist(lambda: commands.revert(open_checkout(self.ours), series, KNOWN))
        self.follow_branch()
        for one in series:
            self.require(one, there=False)

    def require(self, series, there):
        wanted = [(name, line(number, (1000 if there else 0) + number)) for name in NAMES for number in OURS[series.name]]
        missing = [(name, text) for name, text in wanted if text not in (self.ours / name).read_text()]
        assert not missing, (series.name, there, missing)
        assert (self.ours / BROUGHT[series.name]).exists() == there, (series.name, there)
        if there and series.name != "second":
            assert (self.ours / SHARED).exists()

    def insist(self, attempt, another_name=lambda: None):
        for _ in range(TRIES):
            try:
                return attempt()
            except PatchsetError as error:
                self.log.append(f"  refused: {error}")
                self.obey(str(error), another_name)
        raise AssertionError("a dead end")

    def obey(self, told, another_name):
        """Do what the refusal says."""
        gives_up = re.search(r"`git checkout -- ([^`]+)`", told)
        by_git = re.search(r"`git revert (\w+)`", told)
        if gives_up:
            self.both("checkout", "--", *gives_up[1].split())
        elif by_git:
            self.settle_revert(by_git[1])
        elif "exists already" in told:
            another_name()
        elif "Revert that first, commit what was undone" in told:
            self.revert(list(KNOWN.values()))
            self.do_commit_all()
        elif "commit what was undone" in told:
            self.do_commit_all()
        elif "Commit or stash them" in told:
            self.dice.choice([self.do_commit_all, self.do_stash])()
        elif "revert both" in told:
            self.revert(list(KNOWN.values()))
        else:
            raise AssertionError(f"says no way out: {told}")

    def settle_revert(self, commit):
        """``git revert``, with its conflicts settled by hand: our lines go, those beside stay."""
        name = git(self.ours, "log", "-1", "--format=%s", commit).removeprefix("Add ")
        if git(self.ours, "revert", "--no-edit", commit, check=False):
            return
        git(self.ours, "revert", "--abort", check=False)
        for path in NAMES:
            text = (self.ours / path).read_text()
            for number in OURS[name]:
                text = text.replace(line(number, 1000 + number), line(number, number))
            (self.ours / path).write_text(text)
        (self.ours / BROUGHT[name]).unlink(missing_ok=True)
        git(self.ours, "commit", "-q", "-a", "-m", f'Revert "Add {name}"')

    def follow_branch(self):
        """The mirror goes to the branch that the tool went to or made."""
        branch = git(self.ours, "rev-parse", "--abbrev-ref", "HEAD")
        if branch != git(self.plain, "rev-parse", "--abbrev-ref", "HEAD"):
            there = git(self.plain, "branch", "--list", branch)
            git(self.plain, "switch", "-q", *([branch] if there else ["-c", branch]))

    def some(self):
        return [series for series in KNOWN.values() if self.dice.random() < 0.5] or [KNOWN["second"]]

    # Git and edits

    def do_edit(self):
        self.edit(self.dice.choice(USERS))

    def do_edit_next_to_ours(self):
        if self.dice.random() < 0.3:
            self.edit(self.dice.choice(NEXT_TO_OURS))

    def edit(self, number):
        self.count += 1
        name, value = self.dice.choice(NAMES), 5000 + self.count
        for root in (self.ours, self.plain):
            text = (root / name).read_text()
            (root / name).write_text(re.sub(rf"line_{number:02} = \d+\n", line(number, value), text))

    def do_commit_all(self):
        self.count += 1
        self.both("commit", "-q", "-a", "--allow-empty", "-m", f"mine {self.count}")

    def do_commit_all_new_files_too(self):
        self.both("add", "-A")
        self.do_commit_all()

    def do_checkout_files(self):
        self.both("checkout", "--", *self.dice.choice([["."], [NAMES[0]], [NAMES[1]]]))

    def do_stash(self):
        """Each of the two stashes what it has; which had anything is noted by the stash's title."""
        self.count += 1
        flags = self.dice.choice([[], ["-u"]])
        for root in (self.ours, self.plain):
            git(root, "stash", "push", "-q", *flags, "-m", f"stash {self.count}")

    def do_stash_pop(self):
        lists = [git(root, "stash", "list", "--format=%gs").splitlines() for root in (self.ours, self.plain)]
        numbers = [int(rows[0].split()[-1]) if rows else 0 for rows in lists]
        newest = max(numbers)
        if not newest:
            return
        popped = [root for root, number in zip((self.ours, self.plain), numbers) if number == newest]
        went = [git(root, "stash", "pop", "-q", check=False) for root in popped]
        if not all(went):
            for root in popped:
                rows = git(root, "stash", "list", "--format=%gs").splitlines()
                if rows and int(rows[0].split()[-1]) == newest:
                    git(root, "stash", "drop", "-q")
            self.both("reset", "-q", "--hard")
        for root in (self.ours, self.plain):
            git(root, "reset", "-q")

    def do_switch(self):
        if self.dice.random() < 0.3:
            self.count += 1
            self.both("switch", "-q", "-c", f"branch-{self.count}")
        else:
            branch = self.dice.choice(git(self.plain, "branch", "--format=%(refname:short)").split())
            self.both_or_neither(["switch", "-q", branch], ["switch", "-q", git(self.ours, "rev-parse", "--abbrev-ref", "HEAD")])

    def do_merge(self):
        """Of clean checkouts only, as git would have it."""
        if any(git(root, "status", "--porcelain", "-uno") for root in (self.ours, self.plain)):
            return
        branch = self.dice.choice(git(self.plain, "branch", "--format=%(refname:short)").split())
        self.both_or_neither(["merge", "-q", "--no-edit", branch], ["reset", "-q", "--hard", git(self.ours, "rev-parse", "HEAD")])

    def do_pull(self):
        self.upstream_commits()
        if git(self.ours, "rev-parse", "-q", "--verify", "@{upstream}", check=False):
            before = git(self.ours, "rev-parse", "HEAD")
            self.both_or_neither(["pull", "-q", "--no-rebase", "--no-edit"], ["reset", "-q", "--merge", before])

    def upstream_commits(self):
        self.count += 1
        name, number = self.dice.choice(NAMES), self.dice.choice(UPSTREAMS)
        text = (self.origin / name).read_text()
        (self.origin / name).write_text(re.sub(rf"line_{number:02} = \d+\n", line(number, 9000 + self.count), text))
        git(self.origin, "commit", "-q", "-a", "-m", f"theirs {self.count}")

    def both(self, *arguments):
        for root in (self.ours, self.plain):
            git(root, *arguments)

    def both_or_neither(self, arguments, back):
        if not git(self.ours, *arguments, check=False):
            git(self.ours, "merge", "--abort", check=False)
        elif not git(self.plain, *arguments, check=False):
            git(self.plain, "merge", "--abort", check=False)
            git(self.ours, *back)

    # The end

    def compare(self):
        """In copies: everything undone, both are equal; everything applied, they are equal again."""
        end = Walk.__new__(Walk)
        end.dice, end.folder, end.count, end.log = random.Random(self.count), self.folder, self.count, self.log
        end.origin, end.ours, end.plain = self.origin, self.folder / "end-ours", self.folder / "end-plain"
        for old, new in ((self.ours, end.ours), (self.plain, end.plain)):
            shutil.copytree(old, new)
        everything = list(KNOWN.values())
        end.revert(everything)
        assert files_of(end.ours) == files_of(end.plain)
        assert not (end.ours / ".git/keepwarm-patchset").exists()
        end.do_commit_all()
        end.apply(everything)
        commands.apply(open_checkout(end.plain), everything, known=KNOWN)
        assert files_of(end.ours) == files_of(end.plain)
        for root in (end.ours, end.plain):
            shutil.rmtree(root)
