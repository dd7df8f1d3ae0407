"""Plots and reports people can read."""
