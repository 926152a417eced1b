"""Training of the embedded segmenter: photos and label maps in, a nano checkpoint out."""
