"""A fleet without Ray: a fixed list of servers that somebody else starts. For one machine, for tests, and to measure the gateway."""
