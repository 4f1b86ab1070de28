/*
 * Calls from several threads at once, to a worker that fails in all the ways that it can, with Ctrl-C in between; the
 * sanitizers tell of races and leaks. threads CALLS WORD ...: so many calls per thread; the words start the worker.
 */
#include <dirent.h>

#include "fake.h"

/* In one unit, for what is static in them. */
#include "../../udfs/native/columns.c"
#include "../../udfs/native/jammi.c"
#include "../../udfs/native/worker.c"

enum { THREADS = 6, ROWS = 50, PRESSES = 20, PAUSE_US = 50000 };

static int calls;
static unsigned answered, failed;

static void ignore(int number) { (void)number; }

static void call_once(duckdb_logical_type logical, function *called) {
    duckdb_vector columns[] = {new_vector(logical, ROWS)};
    struct opaque_data_chunk chunk = {1, ROWS, columns};
    struct opaque_function_info info = {.extra = called};
    duckdb_vector answer = new_vector(logical, ROWS);
    for (int i = 0; i < ROWS; i++) {
        ((int64_t *)duckdb_vector_get_data(columns[0]))[i] = rand();
    }
    call(&info, &chunk, answer);
    __atomic_add_fetch(info.error[0] ? &failed : &answered, 1, __ATOMIC_RELAXED);
    for (idx_t i = 0; !info.error[0] && i < ROWS; i++) {
        if (!is_equal(columns[0], i, answer, i)) {
            fprintf(stderr, "an answer is that of another call\n");
            abort();
        }
    }
    free_vector(columns[0]);
    free_vector(answer);
}

static void *call_often(void *nothing) {
    type number = {.kind = DUCKDB_TYPE_BIGINT};
    function called = {.count = 1, .parameters = &number, .returns = number};
    duckdb_logical_type logical = logical_type(&number);
    for (int i = 0; i < calls; i++) {
        call_once(logical, &called);
    }
    duckdb_destroy_logical_type(&logical);
    return nothing;
}

static void *press(void *nothing) {
    for (int i = 0; i < PRESSES; i++) {
        usleep(PAUSE_US);
        kill(getpid(), SIGINT);
    }
    return nothing;
}

static int open_files(void) {
    DIR *folder = opendir("/proc/self/fd");
    int count = -3; /* the folder itself, and its two parents by name */
    while (folder && readdir(folder)) {
        count++;
    }
    closedir(folder);
    return count;
}

int main(int count, char **words) {
    pthread_t threads[THREADS + 1];
    char **own_words = calloc((size_t)count, sizeof *own_words);
    if (count < 3 || !own_words) {
        return 2;
    }
    calls = atoi(words[1]);
    for (int i = 2; i < count; i++) {
        own_words[i - 2] = strdup(words[i]);
    }
    int before_all = open_files();
    enter_fake();
    signal(SIGINT, ignore);
    own = (duckdb_connection)words;
    set_command(own_words);
    for (int i = 0; i <= THREADS; i++) {
        pthread_create(&threads[i], NULL, i ? call_often : press, NULL);
    }
    for (int i = 0; i <= THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    stop_worker();
    set_command(NULL);
    printf("%u answered, %u failed, %u workers, %d files open\n", answered, failed, workers, open_files() - before_all);
    return 0;
}
