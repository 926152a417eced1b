"""Torch modules: the embedded segmenter and the head."""
