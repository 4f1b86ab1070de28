"""The files of a location: where they are, what they are called, what is in them, and who uses them now."""
