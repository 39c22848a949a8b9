"""Whether a template runs here, as far as names, checks, families and formats tell."""

from dataclasses import dataclass

from scripts.coverage.offer import Offer
from scripts.coverage.published import family_of, format_of
from scripts.coverage.templates import Template
from scripts.coverage.trial import INPUT, Trial

# Folders of models whose family is told by their name; whether other models load is what their loader nodes stand for.
BY_FAMILY = ("diffusion_models", "checkpoints", "vae", "controlnet")
ENCODERS = "text_encoders"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What keeps *template* from running; nothing does where all three are empty."""

    template: Template
    missing_classes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    not_loaded: tuple[str, ...] = ()

    @property
    def named(self) -> bool:
        """Whether all node classes are here."""
        return not self.missing_classes

    @property
    def covered(self) -> bool:
        """Whether it is loadable too, and its prompt is accepted."""
        return self.named and not self.problems and not self.not_loaded


def judge(template: Template, offer: Offer, trial: Trial) -> Verdict:
    """The verdict on one template. Where classes are missing its prompt is not tried: their values have no names."""
    missing = tuple(sorted(template.classes() - offer.classes))
    files, problems = (template.listed_models(), []) if missing else trial.try_template(template)
    return Verdict(template, missing, tuple(problems), tuple(sorted({why for file in files if (why := _not_loaded(*file, offer))})))


def _not_loaded(folder: str, name: str, offer: Offer) -> str | None:
    """What keeps the file *name* of a model folder from being loaded."""
    if folder == INPUT:
        return None
    stored = format_of(name)
    if stored is not None and stored not in offer.formats:
        return f"{stored} weights"
    if folder not in (*BY_FAMILY, ENCODERS):
        return None
    family = family_of(folder, name)
    if folder == ENCODERS:
        return None if family in offer.text_models else f"text model {family or name}"
    if family is None:
        return f"family of {name}"
    return None if family in offer.families else f"family {family}"
