"""The server: Arrow Flight SQL over gRPC, and HTTP. Imported only by `jammi-duck serve` and its tests."""
