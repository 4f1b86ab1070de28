/* Columns as bytes: how chunks travel to the worker and back. docs/worker-protocol.md has the format. */
#ifndef JAMMI_COLUMNS_H
#define JAMMI_COLUMNS_H

#include "duckdb_api.h"

/* Bytes to be sent. `failed` where memory ran out; nothing is appended from then on. */
typedef struct {
    uint8_t *bytes;
    size_t size, room;
    bool failed;
} buffer;

void put(buffer *to, const void *bytes, size_t size);
void put_u8(buffer *to, uint8_t number);
void put_u32(buffer *to, uint32_t number);
void put_u64(buffer *to, uint64_t number);
void release(buffer *to);

/* Bytes that arrived. `bad` where more was asked for than is left; all that is read from then on is 0. */
typedef struct {
    const uint8_t *at, *end;
    bool bad;
} reader;

const uint8_t *take(reader *from, size_t size);
uint8_t take_u8(reader *from);
uint32_t take_u32(reader *from);
uint64_t take_u64(reader *from);

/* A type: `kind` is DuckDB's number for it; a list has one child, a struct as many as `count`, with names. */
typedef struct type {
    duckdb_type kind;
    uint32_t count;
    char **names;
    struct type *children;
} type;

bool take_type(reader *from, type *to);
void free_type(type *it);
size_t width_of(duckdb_type kind);
duckdb_logical_type logical_type(const type *it);

/* Append the rows of a vector, those whose numbers are in `rows`, or the first `count` where that is NULL. */
void put_vector(buffer *to, duckdb_vector vector, const type *it, const idx_t *rows, idx_t count);

/* Fill a vector with `count` rows; false where the bytes are not such a column. */
bool take_vector(reader *from, duckdb_vector vector, const type *it, idx_t count);

#endif
