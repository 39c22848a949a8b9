"""Texts with half a surrogate pair, as a page sends when it cuts an emoji in two: no file, name or tokenizer can take them."""


def whole_text(text: str) -> str:
    """*text* as browsers write it: halves that belong together become their character, one that stands alone becomes U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
