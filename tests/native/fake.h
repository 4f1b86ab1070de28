/* DuckDB as far as the extension uses it: every array is exactly as large as it must be, so that a sanitizer sees what
 * reads or writes past it. */
#ifndef JAMMI_FAKE_H
#define JAMMI_FAKE_H

#include "../../udfs/native/duckdb_api.h"

struct opaque_logical_type {
    duckdb_type kind;
    idx_t count;
    char **names;
    duckdb_logical_type *children;
};

struct opaque_vector {
    duckdb_logical_type type;
    idx_t capacity, list_size;
    uint8_t *values;
    uint64_t *validity;
    duckdb_vector *children;
    char **texts; /* of each row: what its value points to */
};

struct opaque_data_chunk {
    idx_t count, rows;
    duckdb_vector *columns;
};

struct opaque_scalar_function {
    char *name;
    idx_t count;
    duckdb_logical_type *parameters, returns;
    void *extra;
    duckdb_delete_callback_t destroy;
    duckdb_scalar_function_t function;
    bool is_registered;
};

struct opaque_function_info {
    void *extra;
    char error[256];
};

/* Have the extension's pointers lead here. */
void enter_fake(void);

/* Forget the functions that are registered. */
void leave_fake(void);

duckdb_vector new_vector(duckdb_logical_type type, idx_t capacity);
void free_vector(duckdb_vector it);
void free_chunk(duckdb_data_chunk it);
bool is_null(duckdb_vector it, idx_t row);
void set_null(duckdb_vector it, idx_t row);
bool is_equal(duckdb_vector one, idx_t row, duckdb_vector other, idx_t its_row);

#endif
