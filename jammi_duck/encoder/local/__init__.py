"""Local models: their tokenizers, and which texts go into which forward pass, whatever engine computes it."""
