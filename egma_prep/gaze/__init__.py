"""Arrays in, arrays out: alignment, sentences, the 224 frame, heatmaps."""
