"""Every option, where it came from, what is shown of it, the log, and the cache's place."""
