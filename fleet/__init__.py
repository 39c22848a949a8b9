"""Several servers as one: prompts go to the server where their models are warm."""
