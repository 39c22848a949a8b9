"""The diffusion models of transformer families as samplers see them: conditioning, time, memory."""
