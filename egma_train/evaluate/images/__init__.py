"""Image files as the model sees them."""
