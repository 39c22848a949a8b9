"""How far the running nodes are, and who is told."""
