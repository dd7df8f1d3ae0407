"""One image: preprocess, forward, tile, several scales, results."""
