"""What shows a tree or a finished run and changes neither."""
