"""Predicting many images: the job, its manifest and the files it writes."""
