"""Tokenizers of Qwen's and Llama's kind that know single bytes, one word, and the marks under their numbers."""

MARKS = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|vision_start|>": 151652,
    "<|vision_end|>": 151653,
    "<|image_pad|>": 151655,
}
VOCABULARY = 151656
LATER = 96401  # by so many are the marks' numbers higher for Qwen 3.5
USER = 872


def byte_names() -> dict[int, str]:
    """The sign that stands for each byte, in the order of their numbers: printable bytes first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + number) for number, byte in enumerate(others)}


def qwen_tokenizer_json(further: int = 0) -> str:
    """The content of its ``tokenizer.json``; *further*: what is added to the numbers of the marks."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {sign: number for number, sign in enumerate(byte_names().values())}
    vocabulary |= {"us": 300, "er": 301, "user": USER}
    vocabulary |= {mark: number + further for mark, number in MARKS.items()}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("u", "s"), ("e", "r"), ("us", "er")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(mark, special=True) for mark in MARKS])
    return made.to_str()


LLAMA_MARKS = {"<|begin_of_text|>": 128000, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007, "<|eot_id|>": 128009}
LLAMA_VOCABULARY = 128260


def llama_tokenizer_json() -> str:
    """The content of Llama's, which puts a mark before every text."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

    vocabulary = {sign: number for number, sign in enumerate(byte_names().values())}
    vocabulary |= {"us": 300, "er": 301, "user": 882, "ĊĊ": 271} | LLAMA_MARKS
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[("u", "s"), ("e", "r"), ("us", "er"), ("Ċ", "Ċ")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.add_special_tokens([AddedToken(mark, special=True) for mark in LLAMA_MARKS])
    start = next(iter(LLAMA_MARKS))
    made.post_processor = processors.TemplateProcessing(single=f"{start} $A", special_tokens=[(start, LLAMA_MARKS[start])])
    return made.to_str()
