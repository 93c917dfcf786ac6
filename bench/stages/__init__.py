"""The stages, one file each: what runs beside what, and which rows come of it."""
