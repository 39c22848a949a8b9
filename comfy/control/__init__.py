"""Control chains and their networks' weights."""
