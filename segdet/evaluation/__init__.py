"""Scores: what is measured, never who is measured."""
