"""The nodes of the running prompt and their order."""
