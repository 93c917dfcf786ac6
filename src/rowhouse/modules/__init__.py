"""The business modules: one folder per group of the document, each importing only what stands below it."""
