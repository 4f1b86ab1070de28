"""Made-up files of a later version, which this one must leave alone."""


def later_files(store, table):
    """Files of kinds that this version does not know, beside those of a table, by name."""
    return {f"{table}.words": b"words of a later version", f"{table}.00001.probe": b"", "later.feature": b"\0" * 100}


def put_file(store, file, content):
    """Write a file to a location."""
    scratch = store.scratch(file, "0" * 32)
    scratch.write_bytes(content)
    store.create(file, scratch)
