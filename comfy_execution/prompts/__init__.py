"""Prompts that wait, run and have run."""
