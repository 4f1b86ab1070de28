#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 400, MOST_FUNCTIONS = 4096, WORD = 64 };

static duckdb_scalar_function registered[MOST_FUNCTIONS];
static idx_t functions;
static struct opaque_database {
    int nothing;
} database;

static void *reserve(size_t count, size_t size) {
    void *made = calloc(count, size);
    if (!made && count) {
        fprintf(stderr, "out of memory: %zu times %zu bytes\n", count, size);
        exit(3);
    }
    return made;
}

static size_t width(duckdb_type kind) {
    switch (kind) {
    case DUCKDB_TYPE_BOOLEAN:
        return 1;
    case DUCKDB_TYPE_INTEGER:
    case DUCKDB_TYPE_FLOAT:
        return 4;
    case DUCKDB_TYPE_STRUCT:
        return 0;
    case DUCKDB_TYPE_VARCHAR:
        return sizeof(duckdb_string_t);
    case DUCKDB_TYPE_LIST:
        return sizeof(duckdb_list_entry);
    default:
        return 8;
    }
}

/* ---- Types ---- */

static duckdb_logical_type new_type(duckdb_type kind, idx_t count) {
    duckdb_logical_type made = reserve(1, sizeof *made);
    made->kind = kind;
    made->count = count;
    made->children = reserve(count, sizeof *made->children);
    made->names = reserve(count, sizeof *made->names);
    return made;
}

static duckdb_logical_type copy_of(duckdb_logical_type it) {
    duckdb_logical_type made = new_type(it->kind, it->count);
    for (idx_t i = 0; i < it->count; i++) {
        made->children[i] = copy_of(it->children[i]);
        made->names[i] = it->names[i] ? strdup(it->names[i]) : NULL;
    }
    return made;
}

static duckdb_logical_type fake_duckdb_create_logical_type(duckdb_type kind) { return new_type(kind, 0); }

static duckdb_logical_type fake_duckdb_create_list_type(duckdb_logical_type child) {
    duckdb_logical_type made = new_type(DUCKDB_TYPE_LIST, 1);
    made->children[0] = copy_of(child);
    return made;
}

static duckdb_logical_type fake_duckdb_create_struct_type(duckdb_logical_type *children, const char **names,
                                                          idx_t count) {
    duckdb_logical_type made = new_type(DUCKDB_TYPE_STRUCT, count);
    for (idx_t i = 0; i < count; i++) {
        made->children[i] = copy_of(children[i]);
        made->names[i] = strdup(names[i]);
    }
    return made;
}

static duckdb_type fake_duckdb_get_type_id(duckdb_logical_type it) { return it->kind; }

static void fake_duckdb_destroy_logical_type(duckdb_logical_type *it) {
    for (idx_t i = 0; i < (*it)->count; i++) {
        fake_duckdb_destroy_logical_type(&(*it)->children[i]);
        free((*it)->names[i]);
    }
    free((*it)->children);
    free((*it)->names);
    free(*it);
    *it = NULL;
}

/* ---- Vectors ---- */

static idx_t words(idx_t rows) { return (rows + WORD - 1) / WORD; }

static void grow(duckdb_vector it, idx_t capacity) {
    if (capacity <= it->capacity) {
        return;
    }
    /* A new place each time, so that whoever keeps the old one is found. */
    uint8_t *values = reserve(capacity, width(it->type->kind));
    memcpy(values, it->values, it->capacity * width(it->type->kind));
    free(it->values);
    it->values = values;
    if (it->validity) {
        uint64_t *validity = reserve(words(capacity), sizeof *validity);
        memset(validity, 0xFF, words(capacity) * sizeof *validity);
        memcpy(validity, it->validity, words(it->capacity) * sizeof *validity);
        free(it->validity);
        it->validity = validity;
    }
    if (it->type->kind == DUCKDB_TYPE_VARCHAR) {
        char **texts = reserve(capacity, sizeof *texts);
        memcpy(texts, it->texts, it->capacity * sizeof *texts);
        free(it->texts);
        it->texts = texts;
    }
    for (idx_t i = 0; it->type->kind == DUCKDB_TYPE_STRUCT && i < it->type->count; i++) {
        grow(it->children[i], capacity);
    }
    it->capacity = capacity;
}

duckdb_vector new_vector(duckdb_logical_type type, idx_t capacity) {
    duckdb_vector made = reserve(1, sizeof *made);
    made->type = copy_of(type);
    made->capacity = capacity;
    made->values = reserve(capacity, width(type->kind));
    made->children = reserve(type->count, sizeof *made->children);
    made->texts = reserve(type->kind == DUCKDB_TYPE_VARCHAR ? capacity : 0, sizeof *made->texts);
    for (idx_t i = 0; i < type->count; i++) {
        made->children[i] = new_vector(type->children[i], type->kind == DUCKDB_TYPE_STRUCT ? capacity : 0);
    }
    return made;
}

void free_vector(duckdb_vector it) {
    for (idx_t i = 0; it->type->kind == DUCKDB_TYPE_VARCHAR && i < it->capacity; i++) {
        free(it->texts[i]);
    }
    for (idx_t i = 0; i < it->type->count; i++) {
        free_vector(it->children[i]);
    }
    fake_duckdb_destroy_logical_type(&it->type);
    free(it->values);
    free(it->validity);
    free(it->children);
    free(it->texts);
    free(it);
}

static void *fake_duckdb_vector_get_data(duckdb_vector it) { return it->values; }

static uint64_t *fake_duckdb_vector_get_validity(duckdb_vector it) { return it->validity; }

static void fake_duckdb_vector_ensure_validity_writable(duckdb_vector it) {
    if (!it->validity) {
        it->validity = reserve(words(it->capacity), sizeof *it->validity);
        memset(it->validity, 0xFF, words(it->capacity) * sizeof *it->validity);
    }
}

static void fake_duckdb_vector_assign_string_element_len(duckdb_vector it, idx_t row, const char *text, idx_t length) {
    duckdb_string_t *to = &((duckdb_string_t *)it->values)[row];
    memset(to, 0, sizeof *to);
    to->distant.length = (uint32_t)length;
    free(it->texts[row]);
    it->texts[row] = NULL;
    if (length <= sizeof to->inlined.text) {
        memcpy(to->inlined.text, text, length);
    } else {
        it->texts[row] = reserve(length, 1);
        memcpy(it->texts[row], text, length);
        memcpy(to->distant.prefix, text, sizeof to->distant.prefix);
        to->distant.text = it->texts[row];
    }
}

static duckdb_vector fake_duckdb_list_vector_get_child(duckdb_vector it) { return it->children[0]; }

static duckdb_state fake_duckdb_list_vector_reserve(duckdb_vector it, idx_t capacity) {
    grow(it->children[0], capacity);
    return DuckDBSuccess;
}

static duckdb_state fake_duckdb_list_vector_set_size(duckdb_vector it, idx_t size) {
    it->list_size = size;
    return size <= it->children[0]->capacity ? DuckDBSuccess : DuckDBError;
}

static duckdb_vector fake_duckdb_struct_vector_get_child(duckdb_vector it, idx_t number) {
    return it->children[number];
}

bool is_null(duckdb_vector it, idx_t row) {
    return it->validity && !(it->validity[row / WORD] >> (row % WORD) & 1);
}

void set_null(duckdb_vector it, idx_t row) {
    fake_duckdb_vector_ensure_validity_writable(it);
    it->validity[row / WORD] &= ~((uint64_t)1 << (row % WORD));
}

bool is_equal(duckdb_vector one, idx_t row, duckdb_vector other, idx_t its_row) {
    duckdb_type kind = one->type->kind;
    if (is_null(one, row) || is_null(other, its_row)) {
        return is_null(one, row) && is_null(other, its_row);
    }
    if (kind == DUCKDB_TYPE_STRUCT) {
        bool is = true;
        for (idx_t i = 0; is && i < one->type->count; i++) {
            is = is_equal(one->children[i], row, other->children[i], its_row);
        }
        return is;
    }
    if (kind == DUCKDB_TYPE_LIST) {
        duckdb_list_entry mine = ((duckdb_list_entry *)one->values)[row];
        duckdb_list_entry its = ((duckdb_list_entry *)other->values)[its_row];
        bool is = mine.length == its.length;
        for (idx_t i = 0; is && i < mine.length; i++) {
            is = is_equal(one->children[0], mine.offset + i, other->children[0], its.offset + i);
        }
        return is;
    }
    if (kind == DUCKDB_TYPE_VARCHAR) {
        duckdb_string_t *mine = &((duckdb_string_t *)one->values)[row];
        duckdb_string_t *its = &((duckdb_string_t *)other->values)[its_row];
        uint32_t length = mine->distant.length;
        bool is_short = length <= sizeof mine->inlined.text;
        return length == its->distant.length &&
               memcmp(is_short ? mine->inlined.text : mine->distant.text,
                      is_short ? its->inlined.text : its->distant.text, length) == 0;
    }
    size_t size = width(kind);
    return memcmp(one->values + row * size, other->values + its_row * size, size) == 0;
}

/* ---- Chunks and results ---- */

void free_chunk(duckdb_data_chunk it) {
    for (idx_t i = 0; i < it->count; i++) {
        free_vector(it->columns[i]);
    }
    free(it->columns);
    free(it);
}

static void fake_duckdb_destroy_data_chunk(duckdb_data_chunk *it) {
    free_chunk(*it);
    *it = NULL;
}

static duckdb_vector fake_duckdb_data_chunk_get_vector(duckdb_data_chunk it, idx_t number) {
    return it->columns[number];
}

static idx_t fake_duckdb_data_chunk_get_size(duckdb_data_chunk it) { return it->rows; }

/* A statement's letters say what comes of it: E an error; B I L F D T V a column of that type, U one of a type that the
 * extension does not know; each digit a chunk of so many rows. */
static const duckdb_type kinds[] = {
    ['B'] = DUCKDB_TYPE_BOOLEAN, ['I'] = DUCKDB_TYPE_INTEGER,   ['L'] = DUCKDB_TYPE_BIGINT,  ['F'] = DUCKDB_TYPE_FLOAT,
    ['D'] = DUCKDB_TYPE_DOUBLE,  ['T'] = DUCKDB_TYPE_TIMESTAMP, ['V'] = DUCKDB_TYPE_VARCHAR, ['U'] = 16,
};

static duckdb_type kind_of(char letter) { return letter > 0 && letter <= 'V' ? kinds[(int)letter] : 0; }

static duckdb_state fake_duckdb_query(duckdb_connection connection, const char *query, duckdb_result *result) {
    (void)connection;
    memset(result, 0, sizeof *result);
    result->internal_data = strdup(query);
    if (query[0] == 'E') {
        result->error_message = strdup("an error");
        return DuckDBError;
    }
    for (const char *letter = query; *letter; letter++) {
        result->column_count += kind_of(*letter) != 0;
    }
    return DuckDBSuccess;
}

static void fake_duckdb_destroy_result(duckdb_result *result) {
    free(result->internal_data);
    free(result->error_message);
    memset(result, 0, sizeof *result);
}

static idx_t fake_duckdb_column_count(duckdb_result *result) { return result->column_count; }

static const char *fake_duckdb_result_error(duckdb_result *result) { return result->error_message; }

static duckdb_logical_type fake_duckdb_column_logical_type(duckdb_result *result, idx_t number) {
    const char *letter = result->internal_data;
    while (!kind_of(*letter) || number--) {
        letter++;
    }
    return new_type(kind_of(*letter), 0);
}

static duckdb_data_chunk fake_duckdb_fetch_chunk(duckdb_result result) {
    char *digit = strpbrk(result.internal_data, "0123456789");
    if (!digit) {
        return NULL;
    }
    duckdb_data_chunk made = reserve(1, sizeof *made);
    made->rows = (idx_t)(*digit - '0');
    *digit = ' ';
    made->count = result.column_count;
    made->columns = reserve(made->count, sizeof *made->columns);
    for (idx_t i = 0; i < made->count; i++) {
        duckdb_logical_type type = fake_duckdb_column_logical_type(&result, i);
        made->columns[i] = new_vector(type, made->rows);
        for (idx_t row = 0; row < made->rows; row++) {
            if (row % 3 == 1) {
                set_null(made->columns[i], row);
            } else if (type->kind == DUCKDB_TYPE_VARCHAR) {
                idx_t length = 7 * row % 19;
                fake_duckdb_vector_assign_string_element_len(made->columns[i], row, "a text that is long", length);
            }
        }
        fake_duckdb_destroy_logical_type(&type);
    }
    return made;
}

static duckdb_state fake_duckdb_connect(duckdb_database from, duckdb_connection *made) {
    *made = (duckdb_connection)from;
    return from == (duckdb_database)&database ? DuckDBSuccess : DuckDBError;
}

static void fake_duckdb_disconnect(duckdb_connection *connection) { *connection = NULL; }

/* ---- Functions ---- */

static duckdb_scalar_function fake_duckdb_create_scalar_function(void) { return reserve(1, sizeof(**registered)); }

static void free_function_of(duckdb_scalar_function it) {
    if (it->destroy) {
        it->destroy(it->extra);
    }
    for (idx_t i = 0; i < it->count; i++) {
        fake_duckdb_destroy_logical_type(&it->parameters[i]);
    }
    if (it->returns) {
        fake_duckdb_destroy_logical_type(&it->returns);
    }
    free(it->parameters);
    free(it->name);
    free(it);
}

static void fake_duckdb_destroy_scalar_function(duckdb_scalar_function *it) {
    if (!(*it)->is_registered) {
        free_function_of(*it);
    }
    *it = NULL;
}

static void fake_duckdb_scalar_function_set_name(duckdb_scalar_function it, const char *name) {
    it->name = strdup(name);
}

static void fake_duckdb_scalar_function_set_special_handling(duckdb_scalar_function it) { (void)it; }

static void fake_duckdb_scalar_function_set_volatile(duckdb_scalar_function it) { (void)it; }

static void fake_duckdb_scalar_function_add_parameter(duckdb_scalar_function it, duckdb_logical_type type) {
    it->parameters = realloc(it->parameters, (it->count + 1) * sizeof(*it->parameters));
    it->parameters[it->count++] = copy_of(type);
}

static void fake_duckdb_scalar_function_set_return_type(duckdb_scalar_function it, duckdb_logical_type type) {
    it->returns = copy_of(type);
}

static void fake_duckdb_scalar_function_set_extra_info(duckdb_scalar_function it, void *extra,
                                                       duckdb_delete_callback_t destroy) {
    it->extra = extra;
    it->destroy = destroy;
}

static void fake_duckdb_scalar_function_set_function(duckdb_scalar_function it, duckdb_scalar_function_t function) {
    it->function = function;
}

static duckdb_state fake_duckdb_register_scalar_function(duckdb_connection connection, duckdb_scalar_function it) {
    bool is_new = connection && it->name && *it->name && it->returns && it->function && functions < MOST_FUNCTIONS;
    for (idx_t i = 0; is_new && i < functions; i++) {
        is_new = strcmp(registered[i]->name, it->name) != 0;
    }
    if (is_new) {
        it->is_registered = true;
        registered[functions++] = it;
    }
    return is_new ? DuckDBSuccess : DuckDBError;
}

static void *fake_duckdb_scalar_function_get_extra_info(duckdb_function_info info) { return info->extra; }

static void fake_duckdb_scalar_function_set_error(duckdb_function_info info, const char *error) {
    snprintf(info->error, sizeof info->error, "%s", error);
}

/* ---- Entering ---- */

void enter_fake(void) {
    static void *table[SLOTS];
#define SLOT(place, result, name, parameters)                                                                          \
    {                                                                                                                  \
        result(*here) parameters = fake_##name;                                                                        \
        memcpy(&table[place], &here, sizeof here);                                                                     \
    }
#include "../../udfs/native/slots.h"
#undef SLOT
    take_slots(table);
}

void leave_fake(void) {
    while (functions) {
        free_function_of(registered[--functions]);
    }
}
