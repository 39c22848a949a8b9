"""Whether a prompt can run, without recursion."""
