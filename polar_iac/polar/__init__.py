"""Polar's REST API: the client, its errors and retries, and the environments."""
