"""Local models: their tokenizers, and their forward passes with torch."""
