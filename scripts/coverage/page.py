"""The page docs/reference/coverage.md."""

from collections import Counter
from collections.abc import Iterable, Sequence

from scripts.coverage.offer import Names, Offer
from scripts.coverage.verdicts import Verdict

HEAD = """# Coverage of ComfyUI's nodes and official templates

Written by `python -m scripts.coverage` from the templates of comfyui-workflow-templates-json and the names of ComfyUI 0.33's core nodes
(`scripts/coverage/comfyui_names.json`); templates that need paid services do not count. A template is **covered** when this server has
all its node classes, its prompt, converted by the page's rules, is accepted with its files in place, the model files that it loads are of
families and formats that this server's tables name (`scripts/coverage/published_files.json` tells a file's family by its name), and its
text encoders are of text models that are here and make an encoder together for the type that is asked for.
Models whose loader node is here and whose folder holds one kind only count as loadable. Nothing is downloaded or run for this page.
"""


def write_page(verdicts: Sequence[Verdict], names: Names, offer: Offer) -> str:
    """The page's Markdown."""
    here = names.classes & offer.classes
    parts = [
        HEAD,
        "| what | here | of |\n| --- | ---: | ---: |\n"
        f"| templates covered | {sum(one.covered for one in verdicts)} | {len(verdicts)} |\n"
        f"| templates all of whose node classes are here | {sum(one.named for one in verdicts)} | {len(verdicts)} |\n"
        f"| use of the covered templates | {_usage(one for one in verdicts if one.covered)} | {_usage(verdicts)} |\n"
        f"| node classes | {len(here)} ({len(here) / len(names.classes):.0%}) | {len(names.classes)} |\n"
        f"| samplers | {len(offer.samplers & set(names.samplers))} | {len(names.samplers)} |\n",
        "## What templates wait for\n\n" + _most_wanted(verdicts),
        "## Templates, most used first\n\n| template | use | missing |\n| --- | ---: | --- |\n" + "\n".join(map(_row, verdicts)) + "\n",
        "## Node classes that are not here\n\n" + _wrapped(sorted(names.classes - offer.classes)),
    ]
    return "\n".join(parts)


def summary(verdicts: Sequence[Verdict], names: Names, offer: Offer) -> str:
    """The counts, in one line."""
    covered, named = sum(one.covered for one in verdicts), sum(one.named for one in verdicts)
    return (
        f"{covered} of {len(verdicts)} templates covered ({named} by node names), {len(names.classes & offer.classes)} of "
        f"{len(names.classes)} node classes, {len(offer.samplers & set(names.samplers))} of {len(names.samplers)} samplers"
    )


def _usage(verdicts: Iterable[Verdict]) -> int:
    return sum(one.template.usage for one in verdicts)


def _row(verdict: Verdict) -> str:
    wanting = [f"`{name}`" for name in verdict.missing_classes] + list(verdict.not_loaded) + list(verdict.problems)
    told = "; ".join(wanting).replace("|", "\\|").replace("\n", " ") or "covered"
    return f"| {verdict.template.name} | {verdict.template.usage} | {told} |"


def _most_wanted(verdicts: Iterable[Verdict]) -> str:
    counted = Counter(wanting for one in verdicts for wanting in [*(f"`{name}`" for name in one.missing_classes), *one.not_loaded])
    rows = [f"| {wanting} | {count} |" for wanting, count in sorted(counted.items(), key=lambda item: (-item[1], item[0])) if count > 1]
    return "| wanting | templates |\n| --- | ---: |\n" + "\n".join(rows) + "\n"


def _wrapped(names: Sequence[str], width: int = 140) -> str:
    lines = [""]
    for name in names:
        piece = f"`{name}`" + ("" if name == names[-1] else ",")
        if lines[-1] and len(lines[-1]) + 1 + len(piece) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {piece}".strip()
    return "\n".join(lines) + "\n"
