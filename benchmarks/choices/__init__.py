"""Which choice of a heatmap recovers what a sentence names, on phantoms with a truth."""
