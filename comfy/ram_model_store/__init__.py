"""Weights that outlive the process: one file per part of a model in a memory file system, which servers map and share."""
