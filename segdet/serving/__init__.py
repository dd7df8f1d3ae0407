"""Serving exported models over HTTP: the API, the Open Inference Protocol, and the page."""
