"""One verb per file: load what is needed, let the model decide, write what it decided."""
