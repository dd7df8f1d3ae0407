"""Runtimes that run an exported model, and the choice between them."""
