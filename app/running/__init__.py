"""From a submitted prompt to the worker that runs it; putting the server together."""
