"""Reading ahead: while one model computes, the next one is read."""
