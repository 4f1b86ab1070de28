"""Jobs that change embedding tables: generate, refresh, compact, import; and infer, which keeps nothing."""
