"""Families of networks that restore and enlarge what they are given."""
