"""Forward passes in C, without torch: `engine.native_engine` gives the vectors of a local model."""
