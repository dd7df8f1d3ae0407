"""Measuring trained models on datasets: it joins data, models, inference and evaluation, which do not know each other."""
