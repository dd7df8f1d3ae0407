"""Losses, optimisers, the loop, and durable checkpoints."""
