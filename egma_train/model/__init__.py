"""The model, the weights it starts from, and its tokenizer."""
