"""Workflows as the page saves them, turned into prompts as the page would send them."""
