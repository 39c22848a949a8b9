"""Results kept in this process."""
