"""Plots and reports people can read."""

import os

from segdet.places import cache_folder

# Matplotlib's list of fonts goes into segdet's cache: segdet writes nowhere else in the home folder.
os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))
