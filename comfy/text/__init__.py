"""Text to tokens to conditioning."""
