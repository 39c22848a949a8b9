"""How much of ComfyUI's node classes and official templates this server covers: ``python -m scripts.coverage``."""
