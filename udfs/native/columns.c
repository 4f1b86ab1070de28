#include "columns.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 8, MOST_FIELDS = 256 };

void put(buffer *to, const void *bytes, size_t size) {
    if (to->failed || size == 0) {
        return;
    }
    if (to->room - to->size < size) {
        size_t room = to->room ? to->room : 4096;
        while (room - to->size < size) {
            if (room > SIZE_MAX / 2) {
                to->failed = true;
                return;
            }
            room *= 2;
        }
        uint8_t *grown = realloc(to->bytes, room);
        if (!grown) {
            to->failed = true;
            return;
        }
        to->bytes = grown;
        to->room = room;
    }
    memcpy(to->bytes + to->size, bytes, size);
    to->size += size;
}

void put_u8(buffer *to, uint8_t number) { put(to, &number, sizeof number); }
void put_u32(buffer *to, uint32_t number) { put(to, &number, sizeof number); }
void put_u64(buffer *to, uint64_t number) { put(to, &number, sizeof number); }

void release(buffer *to) {
    free(to->bytes);
    memset(to, 0, sizeof *to);
}

const uint8_t *take(reader *from, size_t size) {
    if (from->bad || (size_t)(from->end - from->at) < size) {
        from->bad = true;
        return NULL;
    }
    const uint8_t *found = from->at;
    from->at += size;
    return found;
}

static void take_into(reader *from, void *to, size_t size) {
    const uint8_t *found = take(from, size);
    if (found) {
        memcpy(to, found, size);
    } else {
        memset(to, 0, size);
    }
}

uint8_t take_u8(reader *from) {
    uint8_t number;
    take_into(from, &number, sizeof number);
    return number;
}

uint32_t take_u32(reader *from) {
    uint32_t number;
    take_into(from, &number, sizeof number);
    return number;
}

uint64_t take_u64(reader *from) {
    uint64_t number;
    take_into(from, &number, sizeof number);
    return number;
}

size_t width_of(duckdb_type kind) {
    switch (kind) {
    case DUCKDB_TYPE_BOOLEAN:
        return 1;
    case DUCKDB_TYPE_INTEGER:
    case DUCKDB_TYPE_FLOAT:
        return 4;
    case DUCKDB_TYPE_BIGINT:
    case DUCKDB_TYPE_DOUBLE:
    case DUCKDB_TYPE_TIMESTAMP:
        return 8;
    default:
        return 0;
    }
}

static bool take_nested_type(reader *from, type *to, int depth) {
    memset(to, 0, sizeof *to);
    to->kind = take_u8(from);
    if (from->bad || depth > DEEPEST) {
        return false;
    }
    if (width_of(to->kind) || to->kind == DUCKDB_TYPE_VARCHAR) {
        return true;
    }
    if (to->kind != DUCKDB_TYPE_LIST && to->kind != DUCKDB_TYPE_STRUCT) {
        return false;
    }
    bool is_struct = to->kind == DUCKDB_TYPE_STRUCT;
    uint32_t count = is_struct ? take_u32(from) : 1;
    if (from->bad || count == 0 || count > MOST_FIELDS) {
        return false;
    }
    to->children = calloc(count, sizeof *to->children);
    to->names = calloc(count, sizeof *to->names);
    if (!to->children || !to->names) {
        return false;
    }
    to->count = count;
    for (uint32_t i = 0; i < count; i++) {
        if (is_struct) {
            uint32_t length = take_u32(from);
            const uint8_t *name = take(from, length);
            to->names[i] = name ? strndup((const char *)name, length) : NULL;
            if (!to->names[i]) {
                return false;
            }
        }
        if (!take_nested_type(from, &to->children[i], depth + 1)) {
            return false;
        }
    }
    return true;
}

bool take_type(reader *from, type *to) { return take_nested_type(from, to, 0); }

void free_type(type *it) {
    for (uint32_t i = 0; i < it->count; i++) {
        free_type(&it->children[i]);
        free(it->names[i]);
    }
    free(it->children);
    free(it->names);
    memset(it, 0, sizeof *it);
}

duckdb_logical_type logical_type(const type *it) {
    if (!it->count) {
        return duckdb_create_logical_type(it->kind);
    }
    duckdb_logical_type made = NULL, inner[MOST_FIELDS];
    for (uint32_t i = 0; i < it->count; i++) {
        inner[i] = logical_type(&it->children[i]);
    }
    if (it->kind == DUCKDB_TYPE_LIST) {
        made = duckdb_create_list_type(inner[0]);
    } else {
        made = duckdb_create_struct_type(inner, (const char **)it->names, it->count);
    }
    for (uint32_t i = 0; i < it->count; i++) {
        duckdb_destroy_logical_type(&inner[i]);
    }
    return made;
}

static bool is_valid(const uint64_t *validity, idx_t row) {
    return !validity || (validity[row / 64] >> (row % 64) & 1);
}

static idx_t row_at(const idx_t *rows, idx_t i) { return rows ? rows[i] : i; }

/* A byte for each row, whether it is valid, to be freed; NULL where all are. */
static uint8_t *valid_rows(buffer *to, duckdb_vector vector, const idx_t *rows, const uint8_t *above, idx_t count) {
    const uint64_t *validity = duckdb_vector_get_validity(vector);
    if (!validity && !above) {
        return NULL;
    }
    uint8_t *valid = malloc(count + 1);
    if (!valid) {
        to->failed = true;
        return NULL;
    }
    for (idx_t i = 0; i < count; i++) {
        valid[i] = (!above || above[i]) && is_valid(validity, row_at(rows, i));
    }
    return valid;
}

static void put_texts(buffer *to, const duckdb_string_t *texts, const idx_t *rows, const uint8_t *valid, idx_t count) {
    for (idx_t i = 0; i < count; i++) {
        put_u32(to, !valid || valid[i] ? texts[row_at(rows, i)].distant.length : 0);
    }
    for (idx_t i = 0; i < count; i++) {
        if (!valid || valid[i]) {
            const duckdb_string_t *text = &texts[row_at(rows, i)];
            bool is_short = text->distant.length <= sizeof text->inlined.text;
            put(to, is_short ? text->inlined.text : text->distant.text, text->distant.length);
        }
    }
}

static void put_lists(buffer *to, duckdb_vector vector, const type *it, const idx_t *rows, const uint8_t *valid,
                      idx_t count) {
    const duckdb_list_entry *lists = duckdb_vector_get_data(vector);
    idx_t total = 0;
    for (idx_t i = 0; i < count; i++) {
        idx_t length = !valid || valid[i] ? lists[row_at(rows, i)].length : 0;
        if (length > UINT32_MAX) {
            to->failed = true;
            return;
        }
        put_u32(to, (uint32_t)length);
        total += length;
    }
    idx_t *inner = malloc((total + 1) * sizeof *inner);
    if (!inner) {
        to->failed = true;
        return;
    }
    idx_t filled = 0;
    for (idx_t i = 0; i < count; i++) {
        idx_t row = row_at(rows, i);
        for (idx_t j = 0; (!valid || valid[i]) && j < lists[row].length; j++) {
            inner[filled++] = lists[row].offset + j;
        }
    }
    put_vector(to, duckdb_list_vector_get_child(vector), &it->children[0], inner, total);
    free(inner);
}

static void put_numbers(buffer *to, const uint8_t *numbers, size_t width, const idx_t *rows, idx_t count) {
    if (!rows) {
        put(to, numbers, count * width);
        return;
    }
    for (idx_t i = 0; i < count; i++) {
        put(to, numbers + rows[i] * width, width);
    }
}

/* `above` tells of each row whether the struct is valid that it is a member of: below one that is NULL, DuckDB leaves
 * what was there, which may point anywhere. */
static void put_column(buffer *to, duckdb_vector vector, const type *it, const idx_t *rows, const uint8_t *above,
                       idx_t count) {
    uint8_t *valid = valid_rows(to, vector, rows, above, count);
    if (to->failed) {
        free(valid);
        return;
    }
    put_u8(to, valid != NULL);
    put(to, valid, valid ? count : 0);
    if (it->kind == DUCKDB_TYPE_VARCHAR) {
        put_texts(to, duckdb_vector_get_data(vector), rows, valid, count);
    } else if (it->kind == DUCKDB_TYPE_LIST) {
        put_lists(to, vector, it, rows, valid, count);
    } else if (it->kind == DUCKDB_TYPE_STRUCT) {
        for (uint32_t i = 0; i < it->count; i++) {
            put_column(to, duckdb_struct_vector_get_child(vector, i), &it->children[i], rows, valid, count);
        }
    } else {
        put_numbers(to, duckdb_vector_get_data(vector), width_of(it->kind), rows, count);
    }
    free(valid);
}

void put_vector(buffer *to, duckdb_vector vector, const type *it, const idx_t *rows, idx_t count) {
    put_column(to, vector, it, rows, NULL, count);
}

/* `count` numbers of 32 bits, and their sum; NULL where the bytes have fewer. */
static const uint8_t *take_lengths(reader *from, idx_t count, uint64_t *sum) {
    if (count > (size_t)(from->end - from->at) / sizeof(uint32_t)) {
        from->bad = true;
        return NULL;
    }
    const uint8_t *lengths = take(from, count * sizeof(uint32_t));
    *sum = 0;
    for (idx_t i = 0; lengths && i < count; i++) {
        uint32_t length;
        memcpy(&length, lengths + i * sizeof length, sizeof length);
        *sum += length;
    }
    return lengths;
}

static uint32_t length_at(const uint8_t *lengths, idx_t i) {
    uint32_t length;
    memcpy(&length, lengths + i * sizeof length, sizeof length);
    return length;
}

static bool take_texts(reader *from, duckdb_vector vector, const uint8_t *valid, idx_t count) {
    uint64_t total;
    const uint8_t *lengths = take_lengths(from, count, &total);
    const uint8_t *text = lengths ? take(from, total) : NULL;
    if (!text) {
        return false;
    }
    for (idx_t i = 0; i < count; i++) {
        uint32_t length = length_at(lengths, i);
        if (!valid || valid[i]) {
            duckdb_vector_assign_string_element_len(vector, i, (const char *)text, length);
        }
        text += length;
    }
    return true;
}

static bool take_lists(reader *from, duckdb_vector vector, const type *it, idx_t count) {
    uint64_t total;
    const uint8_t *lengths = take_lengths(from, count, &total);
    /* Each entry of a list takes a byte at least, but for empty structs, which there are none of. */
    if (!lengths || total > (size_t)(from->end - from->at)) {
        return false;
    }
    if (duckdb_list_vector_reserve(vector, total) != DuckDBSuccess ||
        duckdb_list_vector_set_size(vector, total) != DuckDBSuccess) {
        return false;
    }
    duckdb_list_entry *lists = duckdb_vector_get_data(vector);
    uint64_t offset = 0;
    for (idx_t i = 0; i < count; i++) {
        lists[i].offset = offset;
        lists[i].length = length_at(lengths, i);
        offset += lists[i].length;
    }
    return take_vector(from, duckdb_list_vector_get_child(vector), &it->children[0], total);
}

static const uint8_t *take_validity(reader *from, duckdb_vector vector, idx_t count) {
    const uint8_t *valid = take(from, count);
    if (!valid) {
        return NULL;
    }
    duckdb_vector_ensure_validity_writable(vector);
    uint64_t *validity = duckdb_vector_get_validity(vector);
    for (idx_t i = 0; i < count; i++) {
        uint64_t bit = (uint64_t)1 << (i % 64);
        validity[i / 64] = valid[i] ? validity[i / 64] | bit : validity[i / 64] & ~bit;
    }
    return valid;
}

bool take_vector(reader *from, duckdb_vector vector, const type *it, idx_t count) {
    const uint8_t *valid = NULL;
    if (take_u8(from)) {
        valid = take_validity(from, vector, count);
        if (!valid) {
            return false;
        }
    }
    if (it->kind == DUCKDB_TYPE_VARCHAR) {
        return take_texts(from, vector, valid, count);
    }
    if (it->kind == DUCKDB_TYPE_LIST) {
        return take_lists(from, vector, it, count);
    }
    if (it->kind == DUCKDB_TYPE_STRUCT) {
        for (uint32_t i = 0; i < it->count; i++) {
            if (!take_vector(from, duckdb_struct_vector_get_child(vector, i), &it->children[i], count)) {
                return false;
            }
        }
        return true;
    }
    size_t width = width_of(it->kind);
    const uint8_t *data = count <= (size_t)(from->end - from->at) / width ? take(from, count * width) : NULL;
    if (data && it->kind == DUCKDB_TYPE_BOOLEAN) {
        /* Any other byte would be neither true nor false to DuckDB. */
        bool *to = duckdb_vector_get_data(vector);
        for (idx_t i = 0; i < count; i++) {
            to[i] = data[i] != 0;
        }
    } else if (data && count) {
        memcpy(duckdb_vector_get_data(vector), data, count * width);
    }
    return data != NULL && !from->bad;
}
