"""The files of a location: stores, file names, file formats, and locks."""
