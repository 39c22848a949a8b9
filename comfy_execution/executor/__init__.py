"""Running a prompt: one pass over one node, and the threads it runs on."""
