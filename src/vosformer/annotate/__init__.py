"""The local web annotator: a project folder, an engine that marks and propagates, a server, and a page; see `docs/annotate.md`."""
