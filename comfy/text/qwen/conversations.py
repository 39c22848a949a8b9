"""Conversations that Qwen-Image, HunyuanVideo 1.5 and Kandinsky 5 were trained with, around what the user says (``{}``). Needs no torch."""

SYSTEM = "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{before}{{}}<|im_end|>\n<|im_start|>assistant\n"
DESCRIBE = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the objects and background:"
)
CHANGE = (
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain how the "
    "user's text instruction should alter or modify the image. Generate a new image that meets the user's requirements while "
    "maintaining consistency with the original input where appropriate."
)
ASPECTS = (
    "The main content and theme of the video.",
    "The color, shape, size, texture, quantity, text, and spatial relationships of the objects.",
    "Actions, events, behaviors temporal relationships, physical movement changes of the objects.",
    "background environment, light, style and atmosphere.",
    "camera angles, movements, and transitions used in the video.",
)
DESCRIBE_VIDEO = "\n".join(
    (
        "You are a helpful assistant. Describe the video by detailing the following aspects:",
        *(f"{n}. {a}" for n, a in enumerate(ASPECTS, 1)),
    )
)
ONE_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"

FROM_TEXT = SYSTEM.format(system=DESCRIBE, before="")
ABOUT_ONE_PICTURE = SYSTEM.format(system=CHANGE, before=ONE_PICTURE)
ABOUT_PICTURES = SYSTEM.format(system=CHANGE, before="")
FOR_VIDEO = SYSTEM.format(system=DESCRIBE_VIDEO, before="")

# Kandinsky 5's end with what the user says. A word of the second is misspelt, as it was trained.
WITHOUT_ANSWER = SYSTEM.removesuffix("\n<|im_start|>assistant\n")
DIRECT_VIDEO = "\n".join(
    (
        "You are a prompt engineer. Describe the video in detail.",
        "Describe how the camera moves or shakes, describe the zoom and view angle, whether it follows the objects.",
        "Describe the location of the video, main characters or objects and their action.",
        "Describe the dynamism of the video and presented actions.",
        "Name the visual style of the video: whether it is a professional footage, user generated content, some kind of animation, video "
        "game or screen content.",
        "Describe the visual effects, postprocessing and transitions if they are presented in the video.",
        "Pay attention to the order of key actions shown in the scene.",
    )
)
FOR_DIRECTED_VIDEO = WITHOUT_ANSWER.format(system=DIRECT_VIDEO, before="")
FOR_DIRECTED_PICTURE = WITHOUT_ANSWER.format(system=f"You are a promt engineer. {DESCRIBE}", before="")
