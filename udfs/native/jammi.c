/*
 * A DuckDB extension that knows nothing of embeddings: it registers the scalar functions that are announced to it, sends
 * each chunk of their arguments to a worker process, and copies the answer back. The worker may in turn have SQL run on
 * a connection of the extension's own.
 */
#include "worker.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOT(place, result, name, parameters) result(*name) parameters;
#include "slots.h"
#undef SLOT

void take_slots(const void *api) {
    void *const *table = api;
    /* POSIX lets a function's address stand in a void pointer. */
#define SLOT(place, result, name, parameters) memcpy(&name, &table[place], sizeof name);
#include "slots.h"
#undef SLOT
}

/* ---- SQL for the worker ---- */

enum { WATCH_US = 200000 };

static pthread_mutex_t sql_guard = PTHREAD_MUTEX_INITIALIZER;
static duckdb_connection own;
static unsigned under_way; /* calls, of all threads */

static void let_go(void) {
    stop_worker();
    pthread_mutex_lock(&sql_guard);
    if (own) {
        duckdb_disconnect(&own);
        own = NULL;
    }
    pthread_mutex_unlock(&sql_guard);
}

/* Our connection would keep a file open that the shell has closed, as `.open` does: so look whether it is the last. */
static void *watch_database(void *nothing) {
    for (;;) {
        duckdb_result result;
        bool is_last = false;
        usleep(WATCH_US);
        pthread_mutex_lock(&sql_guard);
        if (own) {
            bool is_there = duckdb_query(own, "FROM system.main.duckdb_connection_count()", &result) == DuckDBSuccess;
            duckdb_data_chunk chunk = is_there ? duckdb_fetch_chunk(result) : NULL;
            if (chunk) {
                is_last = *(int64_t *)duckdb_vector_get_data(duckdb_data_chunk_get_vector(chunk, 0)) == 1;
                duckdb_destroy_data_chunk(&chunk);
            }
            duckdb_destroy_result(&result);
        }
        pthread_mutex_unlock(&sql_guard);
        if (is_last) {
            let_go();
        }
    }
    return nothing;
}

static void *let_go_here(void *nothing) {
    let_go();
    return nothing;
}

/* The last connection closes the database, which writes what is left to write. When that happens while the process
 * exits, the main thread's thread-local variables, DuckDB's among them, are gone; those of a new thread are not. */
static void let_go_at_exit(void) {
    pthread_t thread;
    /* The shell exits from within a signal's handler, in the midst of a statement, when it is not at a prompt. */
    if (__atomic_load_n(&under_way, __ATOMIC_RELAXED)) {
        return;
    }
    if (pthread_create(&thread, NULL, let_go_here, NULL) == 0) {
        pthread_join(thread, NULL);
    }
}

/* The columns' types, then chunk by chunk the number of rows and the columns; a chunk of none is the end. */
static void put_rows(buffer *to, duckdb_result *result) {
    idx_t columns = duckdb_column_count(result);
    type *types = calloc(columns + 1, sizeof *types);
    put_u32(to, (uint32_t)columns);
    for (idx_t i = 0; types && i < columns; i++) {
        duckdb_logical_type logical = duckdb_column_logical_type(result, i);
        types[i].kind = duckdb_get_type_id(logical);
        duckdb_destroy_logical_type(&logical);
        put_u8(to, (uint8_t)types[i].kind);
    }
    duckdb_data_chunk chunk;
    while (types && (chunk = duckdb_fetch_chunk(*result))) {
        idx_t rows = duckdb_data_chunk_get_size(chunk);
        /* The end is told once, below. */
        if (rows) {
            put_u64(to, rows);
        }
        for (idx_t i = 0; rows && i < columns; i++) {
            if (!width_of(types[i].kind) && types[i].kind != DUCKDB_TYPE_VARCHAR) {
                to->failed = true;
            } else {
                put_vector(to, duckdb_data_chunk_get_vector(chunk, i), &types[i], NULL, rows);
            }
        }
        duckdb_destroy_data_chunk(&chunk);
        if (rows == 0) {
            break;
        }
    }
    put_u64(to, 0);
    to->failed = to->failed || !types;
    free(types);
}

static void put_error(buffer *to, const char *error) {
    begin_frame(to);
    put_u8(to, 0);
    put(to, error, strlen(error));
}

/* Run the statement that a frame has, and make the frame with what came of it. */
static void run_sql(const buffer *asked, buffer *reply) {
    duckdb_result result;
    char *text = malloc(asked->size + 1);
    if (!text) {
        put_error(reply, "out of memory");
        return;
    }
    memcpy(text, asked->bytes, asked->size);
    text[asked->size] = 0;
    pthread_mutex_lock(&sql_guard);
    if (!own) {
        put_error(reply, "the database is closed");
    } else {
        if (duckdb_query(own, text, &result) == DuckDBSuccess) {
            begin_frame(reply);
            put_u8(reply, 1);
            put_rows(reply, &result);
            if (reply->failed) {
                release(reply);
                put_error(reply, "a result that does not fit the worker's protocol");
            }
        } else {
            const char *error = duckdb_result_error(&result);
            put_error(reply, error ? error : "the statement failed");
        }
        duckdb_destroy_result(&result);
    }
    pthread_mutex_unlock(&sql_guard);
    free(text);
}

/* ---- The functions ---- */

typedef struct {
    uint32_t number;
    uint32_t count;
    type *parameters;
    type returns;
} function;

static void free_function(void *data) {
    function *it = data;
    for (uint32_t i = 0; i < it->count; i++) {
        free_type(&it->parameters[i]);
    }
    free(it->parameters);
    free_type(&it->returns);
    free(it);
}

static void put_call(buffer *frame, const function *called, duckdb_data_chunk input, idx_t rows) {
    begin_frame(frame);
    put_u32(frame, called->number);
    put_u64(frame, rows);
    for (uint32_t i = 0; i < called->count; i++) {
        put_vector(frame, duckdb_data_chunk_get_vector(input, i), &called->parameters[i], NULL, rows);
    }
}

/* Answer what the worker asks until it answers; the answer is then in `frame`. */
static outcome converse(connection *worker, buffer *frame, uint8_t *kind) {
    outcome so_far = send_frame(worker, frame, CALL);
    while (so_far == ARRIVED) {
        so_far = receive_frame(worker, frame, kind);
        if (so_far != ARRIVED || *kind == ANSWER || *kind == FAILURE) {
            return so_far;
        }
        if (*kind != SQL) {
            return MALFORMED;
        }
        buffer reply = {0};
        run_sql(frame, &reply);
        so_far = reply.failed ? MALFORMED : send_frame(worker, &reply, RESULT);
        release(&reply);
    }
    return so_far;
}

static void forward(duckdb_function_info info, duckdb_data_chunk input, duckdb_vector output) {
    const function *called = duckdb_scalar_function_get_extra_info(info);
    idx_t rows = duckdb_data_chunk_get_size(input);
    char error[512];
    uint8_t kind = 0;
    buffer frame = {0};
    watch_interrupts();
    put_call(&frame, called, input, rows);
    if (frame.failed) {
        release(&frame);
        duckdb_scalar_function_set_error(info, "out of memory");
        return;
    }
    connection *worker = borrow_connection(error, sizeof error);
    if (!worker) {
        release(&frame);
        duckdb_scalar_function_set_error(info, error);
        return;
    }
    outcome came = converse(worker, &frame, &kind);
    if (came == ARRIVED && kind == ANSWER) {
        reader answer = {frame.bytes, frame.bytes + frame.size, false};
        if (!take_vector(&answer, output, &called->returns, rows) || answer.at != answer.end) {
            came = MALFORMED;
        }
    } else if (came == ARRIVED) {
        put_u8(&frame, 0);
        duckdb_scalar_function_set_error(info, frame.failed ? "out of memory" : (const char *)frame.bytes);
    }
    if (came == ARRIVED) {
        give_connection(worker);
    } else {
        if (came == INTERRUPTED) {
            snprintf(error, sizeof error, "interrupted");
        } else if (came == MALFORMED) {
            stop_worker();
            snprintf(error, sizeof error, "the jammi worker sent what is no answer; the next call starts another");
        } else {
            describe_end(worker, error, sizeof error);
        }
        close_connection(worker);
        duckdb_scalar_function_set_error(info, error);
    }
    release(&frame);
}

static void call(duckdb_function_info info, duckdb_data_chunk input, duckdb_vector output) {
    __atomic_add_fetch(&under_way, 1, __ATOMIC_RELAXED);
    forward(info, input, output);
    __atomic_sub_fetch(&under_way, 1, __ATOMIC_RELAXED);
}

/* ---- Loading ---- */

static char *take_text(reader *from) {
    uint32_t length = take_u32(from);
    const uint8_t *text = take(from, length);
    return text ? strndup((const char *)text, length) : NULL;
}

static char **take_words(reader *from) {
    uint32_t count = take_u32(from);
    char **words = count && count < 64 ? calloc(count + 1, sizeof *words) : NULL;
    for (uint32_t i = 0; words && i < count; i++) {
        words[i] = take_text(from);
        if (!words[i]) {
            while (i--) {
                free(words[i]);
            }
            free(words);
            return NULL;
        }
    }
    return words;
}

static bool register_function(reader *from, uint32_t number) {
    function *it = calloc(1, sizeof *it);
    char *name = take_text(from);
    bool is_volatile = take_u8(from);
    bool good = it && name && take_type(from, &it->returns);
    uint32_t count = take_u32(from);
    good = good && count <= 64;
    if (good) {
        it->number = number;
        it->parameters = calloc(count + 1, sizeof *it->parameters);
        good = it->parameters != NULL;
    }
    for (uint32_t i = 0; good && i < count; i++) {
        good = take_type(from, &it->parameters[i]);
        it->count = i + 1;
    }
    if (!good) {
        if (it) {
            free_function(it);
        }
        free(name);
        return false;
    }
    duckdb_scalar_function made = duckdb_create_scalar_function();
    duckdb_scalar_function_set_name(made, name);
    for (uint32_t i = 0; i < count; i++) {
        duckdb_logical_type logical = logical_type(&it->parameters[i]);
        duckdb_scalar_function_add_parameter(made, logical);
        duckdb_destroy_logical_type(&logical);
    }
    duckdb_logical_type logical = logical_type(&it->returns);
    duckdb_scalar_function_set_return_type(made, logical);
    duckdb_destroy_logical_type(&logical);
    duckdb_scalar_function_set_extra_info(made, it, free_function);
    duckdb_scalar_function_set_function(made, call);
    duckdb_scalar_function_set_special_handling(made);
    if (is_volatile) {
        duckdb_scalar_function_set_volatile(made);
    }
    good = duckdb_register_scalar_function(own, made) == DuckDBSuccess;
    duckdb_destroy_scalar_function(&made);
    free(name);
    return good;
}

static bool register_functions(reader *from) {
    static const char magic[8] = "jammi 1\n";
    const uint8_t *begins = take(from, sizeof magic);
    if (!begins || memcmp(begins, magic, sizeof magic) != 0) {
        return false;
    }
    char **words = take_words(from);
    if (!words) {
        return false;
    }
    set_command(words);
    uint32_t count = take_u32(from);
    for (uint32_t i = 0; i < count; i++) {
        if (!register_function(from, i)) {
            return false;
        }
    }
    return !from->bad && from->at == from->end;
}

static bool read_file(const char *path, buffer *to) {
    uint8_t part[4096];
    size_t got;
    FILE *file = fopen(path, "rb");
    if (!file) {
        return false;
    }
    while ((got = fread(part, 1, sizeof part, file)) > 0) {
        put(to, part, got);
    }
    bool good = !ferror(file) && !to->failed;
    fclose(file);
    return good;
}

__attribute__((visibility("default"))) bool jammi_init_c_api(duckdb_extension_info info,
                                                             struct duckdb_extension_access *access) {
    static bool is_registered;
    const void *api = access->get_api(info, "v1.2.0");
    const char *path = getenv("_JAMMI_ANNOUNCEMENT");
    if (!api) {
        return false; /* DuckDB has set the error: it is too old. */
    }
    take_slots(api);
    buffer announced = {0};
    if (!path || !read_file(path, &announced)) {
        access->set_error(info, "the extension jammi finds no announcement; start the shell by `jammi-duck shell`");
        release(&announced);
        return false;
    }
    let_go(); /* of a database that was open before in this process */
    pthread_mutex_lock(&sql_guard);
    bool good = duckdb_connect(*access->get_database(info), &own) == DuckDBSuccess;
    if (good) {
        reader from = {announced.bytes, announced.bytes + announced.size, false};
        good = register_functions(&from);
    }
    pthread_mutex_unlock(&sql_guard);
    release(&announced);
    if (!good) {
        let_go();
        access->set_error(info, "the announcement of the extension jammi is of another version; run `jammi-duck shell`");
        return false;
    }
    if (!is_registered) {
        is_registered = true;
        atexit(let_go_at_exit);
        pthread_t thread;
        if (pthread_create(&thread, NULL, watch_database, NULL) == 0) {
            pthread_detach(thread);
        }
    }
    return true;
}
