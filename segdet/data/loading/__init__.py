"""From records to batches: datasets, samplers, augmentation, cache and loader."""
