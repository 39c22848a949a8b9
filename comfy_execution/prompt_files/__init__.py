"""The files that a prompt's nodes name, and the state they are in."""
