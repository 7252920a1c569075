"""vosformer inside other programs; each module is loaded by its host (`docs/plugins.md`)."""
