"""Parsers of the datasets' files: bytes to arrays, or a named reject."""
