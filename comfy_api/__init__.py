"""The API for node authors: V3 nodes, result caching, progress, and the versions of the API."""
