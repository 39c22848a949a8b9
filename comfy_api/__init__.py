"""What node authors import: V3 nodes, result caching, progress, and the versions of that interface."""
