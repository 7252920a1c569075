"""Sessions over the network: `vosformer serve`, and the client that speaks to it; see `docs/serve.md`."""
