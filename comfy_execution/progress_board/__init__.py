"""How far the running nodes are, and the handlers that show it."""
