/* What the extension knows of DuckDB: the types and functions that it uses, and how it is entered. */
#ifndef JAMMI_DUCKDB_API_H
#define JAMMI_DUCKDB_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t idx_t;
typedef enum { DuckDBSuccess = 0, DuckDBError = 1 } duckdb_state;

typedef enum {
    DUCKDB_TYPE_BOOLEAN = 1,
    DUCKDB_TYPE_INTEGER = 4,
    DUCKDB_TYPE_BIGINT = 5,
    DUCKDB_TYPE_FLOAT = 10,
    DUCKDB_TYPE_DOUBLE = 11,
    DUCKDB_TYPE_TIMESTAMP = 12,
    DUCKDB_TYPE_VARCHAR = 17,
    DUCKDB_TYPE_LIST = 24,
    DUCKDB_TYPE_STRUCT = 25,
} duckdb_type;

typedef struct opaque_database *duckdb_database;
typedef struct opaque_connection *duckdb_connection;
typedef struct opaque_logical_type *duckdb_logical_type;
typedef struct opaque_data_chunk *duckdb_data_chunk;
typedef struct opaque_vector *duckdb_vector;
typedef struct opaque_scalar_function *duckdb_scalar_function;
typedef struct opaque_function_info *duckdb_function_info;
typedef struct opaque_extension_info *duckdb_extension_info;

typedef void (*duckdb_delete_callback_t)(void *data);
typedef void (*duckdb_scalar_function_t)(duckdb_function_info info, duckdb_data_chunk input, duckdb_vector output);

typedef struct {
    idx_t column_count, row_count, rows_changed;
    void *columns;
    char *error_message;
    void *internal_data;
} duckdb_result;

/* A text of up to 12 bytes stands in the vector itself. */
typedef union {
    struct {
        uint32_t length;
        char prefix[4];
        const char *text;
    } distant;
    struct {
        uint32_t length;
        char text[12];
    } inlined;
} duckdb_string_t;

typedef struct {
    uint64_t offset, length;
} duckdb_list_entry;

struct duckdb_extension_access {
    void (*set_error)(duckdb_extension_info info, const char *error);
    duckdb_database *(*get_database)(duckdb_extension_info info);
    const void *(*get_api)(duckdb_extension_info info, const char *version);
};

/* Each function is a pointer of its own, which `take_slots` sets. */
#define SLOT(place, result, name, parameters) extern result(*name) parameters;
#include "slots.h"
#undef SLOT

void take_slots(const void *api);

#endif
