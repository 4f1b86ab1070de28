"""Forward passes with torch: on a CPU, on a CUDA device, and of every model that transformers knows."""
