"""What is written: the schema, its columns, formats, and a reader."""
