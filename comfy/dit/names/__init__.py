"""What diffusers and LoRA trainers call the weights of families whose own files are long already."""
