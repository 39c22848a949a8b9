"""Loading node packs and the tables they fill."""
