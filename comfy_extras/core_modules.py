"""Lists the modules of core nodes, whose classes are attributes of ``nodes`` and report ``nodes`` as their module.

Each defines ``NODE_CLASS_MAPPINGS``, usually ``NODE_DISPLAY_NAME_MAPPINGS``, and, if packs call its functions through ``nodes``
(``nodes.common_ksampler``), a tuple ``NODES_EXPORTS`` of their names. A core module does not import ``nodes`` at module level.
"""

CORE_MODULES: tuple[str, ...] = (
    "comfy_extras.core_clip_vision",
    "comfy_extras.core_conditioning",
    "comfy_extras.core_control",
    "comfy_extras.core_diffusers",
    "comfy_extras.core_gligen",
    "comfy_extras.core_image_files",
    "comfy_extras.core_images",
    "comfy_extras.core_latent_files",
    "comfy_extras.core_latents",
    "comfy_extras.core_loaders",
    "comfy_extras.core_sampling",
    "comfy_extras.core_style_models",
    "comfy_extras.core_vae",
)
