"""Looking inside: attention pictures, and what a variant costs."""
