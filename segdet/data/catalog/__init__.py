"""Datasets by name: their cards, downloads and splits."""
