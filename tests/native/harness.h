/* The extension's codec and conversations on bytes from anywhere, without DuckDB and without a worker. */
#ifndef JAMMI_HARNESS_H
#define JAMMI_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * One input of the fuzzer; aborts where the extension does not do what it must. The first byte tells which:
 * A: an announcement, the rest.
 * C: a call. Then 2 bytes of habits (see system.h), 2 of the number of rows, the type that the function returns, the
 *    number of its parameters, their types and columns; the rest are the frames that the worker sends.
 */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Decode a column, and encode it again, into `again`, to be freed; false where it is none. */
bool recode(const uint8_t *type, size_t type_size, uint64_t rows, const uint8_t *bytes, size_t size, uint8_t **again,
            size_t *again_size);

/* Encode a column that comes of `seed`, and decode it again; aborts where it is another. */
void round_trip(uint64_t seed);

#endif
