"""Nodes that change the texts of a dataset (part of ``nodes_dataset``)."""

from comfy_api.latest import io
from comfy_extras.dataset_bases import TextNode


class TextToLowercase(TextNode):
    """Writes texts in small letters."""

    NODE_ID = "TextToLowercase"
    TITLE = "Convert Text to Lowercase (DEPRECATED)"
    TELLS = "Writes text in small letters."
    ALIASES = ("lowercase",)
    IS_OLD = True

    @classmethod
    def change(cls, text: str, **settings: str) -> str:
        return text.lower()


class TextToUppercase(TextNode):
    """Writes texts in capitals."""

    NODE_ID = "TextToUppercase"
    TITLE = "Convert Text to Uppercase (DEPRECATED)"
    TELLS = "Writes text in capitals."
    ALIASES = ("uppercase",)
    IS_OLD = True

    @classmethod
    def change(cls, text: str, **settings: str) -> str:
        return text.upper()


class TruncateText(TextNode):
    """Cuts texts off."""

    NODE_ID = "TruncateText"
    TITLE = "Truncate Text"
    TELLS = "Cuts text off after a number of characters."
    ALIASES = ("truncate", "cut", "shorten")

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [io.Int.Input("max_length", default=77, min=1, max=10000, tooltip="Characters that are kept.")]

    @classmethod
    def change(cls, text: str, **settings: int) -> str:
        return text[: settings["max_length"]]


class AddTextPrefix(TextNode):
    """Puts a text in front of others."""

    NODE_ID = "AddTextPrefix"
    TITLE = "Add Text Prefix (DEPRECATED)"
    TELLS = "Puts the same words in front of every text."
    IS_OLD = True

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [io.String.Input("prefix", default="", tooltip="What is put in front.")]

    @classmethod
    def change(cls, text: str, **settings: str) -> str:
        return settings["prefix"] + text


class AddTextSuffix(TextNode):
    """Puts a text behind others."""

    NODE_ID = "AddTextSuffix"
    TITLE = "Add Text Suffix (DEPRECATED)"
    TELLS = "Puts the same words behind every text."
    IS_OLD = True

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [io.String.Input("suffix", default="", tooltip="What is put behind.")]

    @classmethod
    def change(cls, text: str, **settings: str) -> str:
        return text + settings["suffix"]


class ReplaceText(TextNode):
    """Replaces words in texts."""

    NODE_ID = "ReplaceText"
    TITLE = "Replace Text (DEPRECATED)"
    TELLS = "Replaces one piece of text by another wherever it stands."
    IS_OLD = True

    @classmethod
    def settings(cls) -> list[io.Input]:
        return [
            io.String.Input("find", default="", tooltip="What is looked for."),
            io.String.Input("replace", default="", tooltip="What takes its place."),
        ]

    @classmethod
    def change(cls, text: str, **settings: str) -> str:
        return text.replace(settings["find"], settings["replace"])


class StripWhitespace(TextNode):
    """Takes blanks off the ends of texts."""

    NODE_ID = "StripWhitespace"
    TITLE = "Strip Whitespace (DEPRECATED)"
    TELLS = "Takes blanks and line ends off both ends of text."
    IS_OLD = True

    @classmethod
    def change(cls, text: str, **settings: str) -> str:
        return text.strip()


class MergeTextLists(TextNode):
    """Makes one list of several."""

    NODE_ID = "MergeTextLists"
    TITLE = "Merge Text Lists (DEPRECATED)"
    TELLS = "Makes one list of the lists that are connected."
    IS_OLD = True
    TAKES_LIST = True

    @classmethod
    def change_all(cls, texts: list[str], **settings: str) -> list[str]:
        return texts


TEXT_NODES: tuple[type[TextNode], ...] = (
    TextToLowercase,
    TextToUppercase,
    TruncateText,
    AddTextPrefix,
    AddTextSuffix,
    ReplaceText,
    StripWhitespace,
    MergeTextLists,
)
