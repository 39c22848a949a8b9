"""Where ComfyUI calls the RAM model cache: its owner, the loaders, the checks of pristine weights."""
