"""Weights in fewer bits than they are computed in: which formats there are, and how layers compute with them.

comfy-kitchen quantises, dequantises and multiplies; it is optional, and imported when the first such weight is read.
"""
