"""Bring-your-own-data: files in (sources, mapping, importer), out (exporter), and back again (undo)."""
