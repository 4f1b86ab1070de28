"""Look-up models: a vector for each token, read from a table, and their mean for a text. Needs numpy only."""
