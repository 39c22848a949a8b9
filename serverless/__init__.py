"""Serverless workers and their client. They talk to a ComfyUI-compatible server over HTTP and WebSocket only, and import none of it."""
