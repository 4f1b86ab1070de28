"""Search over the vectors of a segment: sidecars, the graph, exact search, and the choice between them."""
