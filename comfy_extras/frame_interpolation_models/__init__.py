"""Networks that make frames between two others, by ComfyUI's names."""
