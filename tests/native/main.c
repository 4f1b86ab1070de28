/*
 * run FILE ...               each file through the fuzzer's target
 * mutate SECONDS FILE ...    the files, changed at random, through it: a fuzzer that needs nothing but a compiler
 * roundtrip FROM TO          columns that come of these seeds, encoded and decoded
 * recode                     columns from standard input, decoded and encoded again to standard output: `recode_all`
 */
#include "harness.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_BYTES = 1 << 16 };

static uint8_t *read_whole(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(2);
    }
    *size = (size_t)ftell(file);
    rewind(file);
    /* Exactly as large, for the sanitizer. */
    uint8_t *bytes = malloc(*size ? *size : 1);
    if (!bytes || fread(bytes, 1, *size, file) != *size) {
        perror(path);
        exit(2);
    }
    fclose(file);
    return bytes;
}

static void run_all(int count, char **paths) {
    for (int i = 0; i < count; i++) {
        size_t size;
        uint8_t *bytes = read_whole(paths[i], &size);
        LLVMFuzzerTestOneInput(bytes, size);
        free(bytes);
    }
    printf("%d inputs\n", count);
}

static size_t change(uint8_t *bytes, size_t size) {
    static const uint32_t edges[] = {0, 1, 12, 13, 255, 256, 0x7FFFFFFF, 0xFFFFFFFF};
    size_t at = size ? (size_t)rand() % size : 0;
    switch (rand() % 6) {
    case 0:
        return at;
    case 1:
        if (size && size < MOST_BYTES) {
            memmove(bytes + at + 1, bytes + at, size - at);
            return size + 1;
        }
        return size;
    case 2:
        if (size) {
            memmove(bytes + at, bytes + at + 1, size - at - 1);
            return size - 1;
        }
        return size;
    case 3:
        if (size - at >= sizeof *edges) {
            memcpy(bytes + at, &edges[rand() % 8], sizeof *edges);
        }
        return size;
    default:
        if (size) {
            bytes[at] = (uint8_t)rand();
        }
        return size;
    }
}

static void mutate(long seconds, int count, char **paths) {
    time_t end = time(NULL) + seconds;
    uint8_t *copy = malloc(MOST_BYTES);
    uint64_t inputs = 0;
    srand((unsigned)time(NULL));
    printf("the seed is %u\n", (unsigned)time(NULL));
    while (copy && time(NULL) < end) {
        size_t size;
        uint8_t *bytes = read_whole(paths[rand() % count], &size);
        size = size < MOST_BYTES ? size : MOST_BYTES;
        for (int i = 0; i < 100; i++) {
            size_t changed = size;
            memcpy(copy, bytes, size);
            for (int changes = rand() % 8; changes >= 0; changes--) {
                changed = change(copy, changed);
            }
            uint8_t *exact = malloc(changed ? changed : 1);
            memcpy(exact, copy, changed);
            FILE *last = fopen("last-input", "wb");
            if (last) {
                fwrite(exact, 1, changed, last);
                fclose(last);
            }
            LLVMFuzzerTestOneInput(exact, changed);
            free(exact);
            inputs++;
        }
        free(bytes);
    }
    free(copy);
    remove("last-input");
    printf("%" PRIu64 " inputs\n", inputs);
}

static uint8_t *take_exactly(size_t size) {
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes || fread(bytes, 1, size, stdin) != size) {
        fprintf(stderr, "the input ends too early\n");
        exit(2);
    }
    return bytes;
}

/* Three numbers of 64 bits, the size of the type, the rows, the size of the column; then the two; until the input ends.
 * Out go 64 bits of size and the column, or as a size the greatest number where it is none. */
static void recode_all(void) {
    uint64_t head[3];
    while (fread(head, sizeof head, 1, stdin) == 1) {
        uint8_t *type = take_exactly(head[0]), *bytes = take_exactly(head[2]), *again = NULL;
        size_t size = 0;
        bool is_column = recode(type, head[0], head[1], bytes, head[2], &again, &size);
        uint64_t told = is_column ? size : UINT64_MAX;
        fwrite(&told, sizeof told, 1, stdout);
        fwrite(again ? again : (uint8_t *)"", 1, size, stdout);
        fflush(stdout);
        free(type);
        free(bytes);
        free(again);
    }
}

int main(int count, char **words) {
    if (count >= 2 && strcmp(words[1], "run") == 0) {
        run_all(count - 2, words + 2);
    } else if (count >= 4 && strcmp(words[1], "mutate") == 0) {
        mutate(atol(words[2]), count - 3, words + 3);
    } else if (count == 4 && strcmp(words[1], "roundtrip") == 0) {
        for (uint64_t seed = (uint64_t)atol(words[2]); seed < (uint64_t)atol(words[3]); seed++) {
            round_trip(seed);
        }
    } else if (count == 2 && strcmp(words[1], "recode") == 0) {
        recode_all();
    } else {
        fprintf(stderr, "usage: run FILE ... | mutate SECONDS FILE ... | roundtrip FROM TO | recode\n");
        return 2;
    }
    return 0;
}
