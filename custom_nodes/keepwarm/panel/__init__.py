"""The panel in the sidebar: what lies in VRAM, RAM and on disk, told to the page that shows it, and what the page may ask for."""
