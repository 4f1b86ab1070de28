/* A model's tensors as the kernels read them, and what kernels are. */

#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "encoder.h"

/* A matrix whose columns lie as the kernels multiply them: in panels of `panel` outputs, for each panel in steps of 4
 * bytes of inputs, and for each step the inputs of all outputs of the panel. */
struct matrix {
    int64_t outputs, inputs, panel, steps; /* outputs without those that fill the last panel */
    int gated;                             /* vectors of outputs are in turn those that are activated, and those that are not */
    char *packed;
    float *scales, *sums; /* INT8: the value of 1, and the value of a row of ones, for each output */
};

struct layer {
    struct matrix matrices[MATRICES];
    float *vectors[LAYER_VECTORS];
    int32_t rotation, reach;
};

struct encoder {
    struct shape shape;
    int precision;
    const struct kernel_set *set;
    float *vectors[VECTORS]; /* from LAYER_VECTORS on */
    const void *words;
    int words_number;
    struct layer *layers;
    int64_t *rows_put; /* of each matrix */
};

/* Where tensors are read from: any address, any of `enum number`. */
struct source {
    const char *numbers;
    int number;
};

void read_numbers(struct source from, int64_t first, int64_t count, float *to);

/* 64 bytes are a vector of the widest kind, and a line of the cache. */
void *memory(size_t bytes);
void release(void *memory);

struct pass {
    int64_t count, tokens, longest;
    const int32_t *lengths, *ids, *types;
    int poolings;
    const int32_t *pooling;
    int64_t skipped;
    float *out;
    int64_t members; /* threads that share the pass */
};

/* Rows of a matrix that are packed together. */
#define PACKED_ROWS 32

struct kernel_set {
    int64_t panel; /* outputs that a panel of a matrix has room for */
    int64_t lanes;
    void (*pack)(struct matrix *matrix, int64_t first, int64_t rows, float *numbers);
    int (*forward)(const struct encoder *encoder, const struct pass *pass);
    void (*linear)(int64_t rows, int64_t inputs, int64_t outputs, const float *x, const float *weights,
                   const float *bias, float *y);
};

extern const struct kernel_set plain_float32, plain_int8;
#ifdef __x86_64__
/* NULL is the address of those that the compiler did not know. */
#define IF_COMPILED __attribute__((weak, visibility("hidden")))
extern const struct kernel_set avx2_float32 IF_COMPILED, avx2_int8 IF_COMPILED, avx512_float32 IF_COMPILED,
    avx512_bfloat16 IF_COMPILED, avx512_int8 IF_COMPILED, avx512_int8_bfloat16 IF_COMPILED;
#endif

/* The set that computes in a precision, or NULL if this CPU has none. */
const struct kernel_set *kernels_for(int kernels, int precision);

#endif
