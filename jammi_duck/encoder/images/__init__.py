"""Pictures to vectors: where they may be read from, how they become pixels, and CLIP, which has texts and pictures."""
