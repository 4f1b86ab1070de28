"""Long work that changes embedding tables: generate, refresh, compact, import; and infer, which keeps nothing."""
