"""The commands of the `rowhouse` program, a file per subject; each is a thin walker over the operations."""
