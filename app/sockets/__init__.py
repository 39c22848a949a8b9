"""WebSocket clients and what is sent to them."""
