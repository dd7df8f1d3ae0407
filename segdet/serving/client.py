"""A small client for `/v1`, with the standard library only."""
