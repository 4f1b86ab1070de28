#include "harness.h"

#include <pthread.h>

#include "fake.h"
#include "system.h"

/* In one unit, for what is static in them. */
#include "../../udfs/native/columns.c"
#include "../../udfs/native/jammi.c"
#include "../../udfs/native/worker.c"

enum { MOST_CELLS = 1 << 22, MOST_ROWS = 2048, MOST_PARAMETERS = 4 };

static size_t fields_of(const type *it) {
    size_t fields = 1;
    for (uint32_t i = 0; i < it->count; i++) {
        fields += fields_of(&it->children[i]);
    }
    return fields;
}

static duckdb_vector vector_of(const type *it, idx_t rows) {
    duckdb_logical_type logical = logical_type(it);
    duckdb_vector made = new_vector(logical, rows);
    duckdb_destroy_logical_type(&logical);
    return made;
}

/* What was decoded is encoded and decoded once more: it must be the same, in bytes and in values. */
static void check_again(duckdb_vector vector, const type *it, idx_t rows) {
    buffer once = {0}, twice = {0};
    duckdb_vector copy = vector_of(it, rows);
    put_vector(&once, vector, it, NULL, rows);
    reader from = {once.bytes, once.bytes + once.size, false};
    if (once.failed || !take_vector(&from, copy, it, rows) || from.at != from.end) {
        refuse("a column cannot be decoded that was encoded here");
    }
    for (idx_t row = 0; row < rows; row++) {
        if (!is_equal(vector, row, copy, row)) {
            refuse("a column is another after it was encoded and decoded");
        }
    }
    put_vector(&twice, copy, it, NULL, rows);
    if (twice.size != once.size || memcmp(once.bytes, twice.bytes, once.size) != 0) {
        refuse("a column has other bytes when it is encoded once more");
    }
    free_vector(copy);
    release(&once);
    release(&twice);
}

static void take_announcement(reader *from) {
    own = (duckdb_connection)&outside;
    register_functions(from);
    leave_fake();
    set_command(NULL);
    own = NULL;
}

/* The function that is called, and the chunk of its arguments; false where the bytes are none, or of too many cells. */
static bool take_call(reader *from, function *called, duckdb_data_chunk chunk) {
    if (!take_type(from, &called->returns)) {
        return false;
    }
    uint32_t count = take_u8(from) % (MOST_PARAMETERS + 1);
    size_t fields = fields_of(&called->returns), size = (size_t)(from->end - from->at);
    called->parameters = calloc(MOST_PARAMETERS, sizeof *called->parameters);
    chunk->columns = calloc(MOST_PARAMETERS, sizeof(*chunk->columns));
    for (uint32_t i = 0; i < count; i++) {
        called->count = i + 1;
        if (!take_type(from, &called->parameters[i])) {
            return false;
        }
        fields += fields_of(&called->parameters[i]);
    }
    if (fields * (chunk->rows + size) > MOST_CELLS) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        chunk->columns[chunk->count++] = vector_of(&called->parameters[i], chunk->rows);
        if (!take_vector(from, chunk->columns[i], &called->parameters[i], chunk->rows)) {
            return false;
        }
        check_again(chunk->columns[i], &called->parameters[i], chunk->rows);
    }
    return true;
}

static void make_calls(unsigned habits, reader *from, function *called, duckdb_data_chunk chunk) {
    static char *words[] = {"worker", NULL};
    begin_system(habits, from->at, from->end);
    own = (duckdb_connection)&outside;
    command = words;
    /* The second call finds what the first has left of the worker. */
    for (int i = 0; i < 2; i++) {
        struct opaque_function_info info = {.extra = called};
        duckdb_vector answer = vector_of(&called->returns, chunk->rows);
        call(&info, chunk, answer);
        if (!info.error[0]) {
            check_again(answer, &called->returns, chunk->rows);
        }
        free_vector(answer);
    }
    stop_worker();
    check_closed();
    process = -1;
    memset(leaving, 0, sizeof leaving);
    command = NULL;
    own = NULL;
}

static void take_conversation(reader *from) {
    duckdb_data_chunk chunk = calloc(1, sizeof(*chunk));
    function *called = calloc(1, sizeof *called);
    unsigned habits = take_u8(from);
    habits |= (unsigned)take_u8(from) << 8;
    chunk->rows = take_u8(from);
    chunk->rows = (chunk->rows | (idx_t)take_u8(from) << 8) % (MOST_ROWS + 1);
    if (take_call(from, called, chunk)) {
        make_calls(habits, from, called, chunk);
    }
    free_chunk(chunk);
    free_function(called);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    enter_fake();
    begin_system(0, NULL, NULL);
    reader from = {bytes, bytes + size, false};
    uint8_t what = take_u8(&from);
    if (what == 'A') {
        take_announcement(&from);
    } else if (what == 'C') {
        take_conversation(&from);
    }
    return 0;
}

bool recode(const uint8_t *type_bytes, size_t type_size, uint64_t rows, const uint8_t *bytes, size_t size,
            uint8_t **again, size_t *again_size) {
    type it;
    enter_fake();
    reader type_from = {type_bytes, type_bytes + type_size, false}, from = {bytes, bytes + size, false};
    buffer to = {0};
    bool is_column = take_type(&type_from, &it) && type_from.at == type_from.end;
    if (is_column) {
        duckdb_vector vector = vector_of(&it, rows);
        is_column = take_vector(&from, vector, &it, rows) && from.at == from.end;
        if (is_column) {
            put_vector(&to, vector, &it, NULL, rows);
            check_again(vector, &it, rows);
        }
        free_vector(vector);
    }
    free_type(&it);
    *again = to.bytes;
    *again_size = to.size;
    return is_column;
}

/* ---- Columns that come of a seed ---- */

static uint64_t state;

static uint64_t below(uint64_t limit) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545F4914F6CDD1D % limit;
}

static type any_type(int depth) {
    static const duckdb_type plain[] = {DUCKDB_TYPE_BOOLEAN, DUCKDB_TYPE_INTEGER, DUCKDB_TYPE_BIGINT, DUCKDB_TYPE_FLOAT,
                                        DUCKDB_TYPE_DOUBLE,  DUCKDB_TYPE_TIMESTAMP, DUCKDB_TYPE_VARCHAR};
    uint64_t chosen = below(depth < 4 ? 12 : 7);
    type made = {0};
    if (chosen < 7) {
        made.kind = plain[chosen];
        return made;
    }
    made.kind = chosen < 10 ? DUCKDB_TYPE_LIST : DUCKDB_TYPE_STRUCT;
    made.count = made.kind == DUCKDB_TYPE_LIST ? 1 : (uint32_t)below(4) + 1;
    made.children = calloc(made.count, sizeof *made.children);
    made.names = calloc(made.count, sizeof *made.names);
    for (uint32_t i = 0; i < made.count; i++) {
        made.children[i] = any_type(depth + 1);
        made.names[i] = strdup("field");
    }
    return made;
}

/* What a row that is NULL has in it may be anything, so it points nowhere. */
static const duckdb_string_t no_text = {.distant = {.length = 1u << 31, .text = (const char *)1}};
static const duckdb_list_entry no_list = {(uint64_t)1 << 62, (uint64_t)1 << 30};

static void fill(duckdb_vector it, const type *of, idx_t rows);

static void fill_lists(duckdb_vector it, const type *of, idx_t rows) {
    duckdb_list_entry *lists = duckdb_vector_get_data(it);
    idx_t total = 0;
    /* From the last to the first, with gaps: a list's offset says where it lies, not those before it. */
    for (idx_t row = rows; row-- > 0;) {
        lists[row] = no_list;
        if (!is_null(it, row)) {
            total += below(3);
            lists[row] = (duckdb_list_entry){total, below(4) ? below(6) : 0};
            total += lists[row].length;
        }
    }
    duckdb_list_vector_reserve(it, total);
    duckdb_list_vector_set_size(it, total);
    fill(duckdb_list_vector_get_child(it), &of->children[0], total);
}

static void fill_texts(duckdb_vector it, idx_t rows) {
    char text[40];
    duckdb_string_t *texts = duckdb_vector_get_data(it);
    for (idx_t row = 0; row < rows; row++) {
        size_t length = below(sizeof text);
        for (size_t i = 0; i < length; i++) {
            text[i] = (char)below(256);
        }
        if (is_null(it, row)) {
            texts[row] = no_text;
        } else {
            duckdb_vector_assign_string_element_len(it, row, text, length);
        }
    }
}

static void fill(duckdb_vector it, const type *of, idx_t rows) {
    size_t width = width_of(of->kind);
    uint8_t *values = duckdb_vector_get_data(it);
    uint64_t nulls = below(3);
    for (idx_t row = 0; row < rows && nulls; row++) {
        if (below(5) < nulls * nulls) {
            set_null(it, row);
        }
    }
    for (size_t i = 0; i < rows * width; i++) {
        values[i] = (uint8_t)below(of->kind == DUCKDB_TYPE_BOOLEAN ? 2 : 256);
    }
    if (of->kind == DUCKDB_TYPE_VARCHAR) {
        fill_texts(it, rows);
    } else if (of->kind == DUCKDB_TYPE_LIST) {
        fill_lists(it, of, rows);
    }
    for (uint32_t i = 0; of->kind == DUCKDB_TYPE_STRUCT && i < of->count; i++) {
        fill(duckdb_struct_vector_get_child(it, i), &of->children[i], rows);
    }
}

/* Below a struct that is NULL, too, there may be anything. */
static void spoil(duckdb_vector it, const type *of, idx_t row) {
    if (of->kind == DUCKDB_TYPE_VARCHAR) {
        ((duckdb_string_t *)duckdb_vector_get_data(it))[row] = no_text;
    } else if (of->kind == DUCKDB_TYPE_LIST) {
        ((duckdb_list_entry *)duckdb_vector_get_data(it))[row] = no_list;
    }
    for (uint32_t i = 0; of->kind == DUCKDB_TYPE_STRUCT && i < of->count; i++) {
        spoil(duckdb_struct_vector_get_child(it, i), &of->children[i], row);
    }
}

static void spoil_nulls(duckdb_vector it, const type *of, idx_t rows) {
    for (uint32_t i = 0; of->kind == DUCKDB_TYPE_STRUCT && i < of->count; i++) {
        duckdb_vector child = duckdb_struct_vector_get_child(it, i);
        spoil_nulls(child, &of->children[i], rows);
        for (idx_t row = 0; row < rows; row++) {
            if (is_null(it, row)) {
                spoil(child, &of->children[i], row);
            }
        }
    }
    if (of->kind == DUCKDB_TYPE_LIST) {
        duckdb_vector child = duckdb_list_vector_get_child(it);
        spoil_nulls(child, &of->children[0], child->capacity);
    }
}

void round_trip(uint64_t seed) {
    enter_fake();
    state = seed * 2 + 1;
    below(2);
    type it = any_type(0);
    idx_t rows = below(4) ? below(70) : below(3);
    duckdb_vector vector = vector_of(&it, rows);
    fill(vector, &it, rows);
    spoil_nulls(vector, &it, rows);
    check_again(vector, &it, rows);
    free_vector(vector);
    free_type(&it);
}
