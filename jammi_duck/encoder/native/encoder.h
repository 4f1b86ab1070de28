/* Forward passes of transformer encoders on a CPU: token ids in, a vector for each sequence out.
 *
 * No function keeps a pointer that it is given, except `encoder_map_words`. All functions may be called from several
 * threads at once, but nobody may put into a model, or free it, while another thread uses it. */

#ifndef ENCODER_H
#define ENCODER_H

#include <stdint.h>

#define ENCODER_API __attribute__((visibility("default")))

/* Grows with each change of what is below. */
#define ENCODER_VERSION 1

enum result {
    DONE,
    NO_MEMORY,
    BAD_SHAPE,  /* no model of this shape can be computed here */
    BAD_TENSOR, /* a tensor that the shape has no place for, or not with these sizes */
    INCOMPLETE, /* a tensor is missing */
    BAD_INPUT,  /* a token id, a type or a length that the model does not have */
    NO_KERNELS, /* this CPU cannot compute that, or this library was built without it */
};

/* What a model multiplies its matrices in. */
enum precision { FLOAT32, BFLOAT16, INT8, PRECISIONS };

/* By which instructions; later ones are faster. */
enum kernels { PLAIN, AVX2, AVX512, KERNELS };

/* How the numbers of a tensor are written. */
enum number { OF_FLOAT32, OF_FLOAT16, OF_BFLOAT16, NUMBERS };

enum activation { GELU, GELU_TANH, RELU, SILU, ACTIVATIONS };

enum pooling { MEAN, CLS, MAX, LAST_TOKEN, WEIGHTED_MEAN, MEAN_SQRT_LENGTH, POOLINGS };

struct shape {
    int32_t hidden, heads, inner, layers;
    int32_t vocabulary;
    int32_t positions;  /* that the model has vectors or rotations for */
    int32_t types;      /* of tokens; 0 if it has no vectors for them */
    int32_t padding;    /* the token id from which positions are counted, as RoBERTa does; -1 for all others */
    int32_t activation; /* an `enum activation` */
    int32_t pre_norm;   /* ModernBERT: norms before each part, and after all; otherwise after each part */
    int32_t gated;      /* twice `inner` rows in UP: first those that are activated, then those that multiply them */
    int32_t rotations;  /* tables of rotations, of which each layer uses one; 0 if positions have vectors */
    int32_t relative;   /* 1 if scores get a number for each head and distance, as in MPNet */
    float eps;          /* of the norms */
};

/* Matrices of a layer, [outputs, inputs]. */
enum matrix_slot { QKV, MIXED, UP, DOWN, MATRICES };

/* Vectors of a layer; `layer` is -1 for those of the whole model. */
enum vector_slot {
    QKV_BIAS, MIXED_BIAS, UP_BIAS, DOWN_BIAS,      /* zeros unless they are put */
    ATTENTION_NORM, ATTENTION_NORM_BIAS,
    OUTPUT_NORM, OUTPUT_NORM_BIAS,                 /* with `pre_norm`, that before UP */
    LAYER_VECTORS,
    POSITION_TABLE = LAYER_VECTORS,                /* [positions, hidden] */
    TYPE_TABLE,                                    /* [types, hidden] */
    EMBEDDING_NORM, EMBEDDING_NORM_BIAS,
    FINAL_NORM, FINAL_NORM_BIAS,
    ROTATION_TABLE,                                /* [rotations, positions, 2, hidden / heads / 2]: cosines, sines */
    RELATIVE_TABLE,                                /* [heads, 2 * positions - 1]: by key minus query, in base 2 */
    VECTORS,
};

struct encoder;

ENCODER_API int encoder_version(void);

/* 1 if this CPU can compute in a precision by these kernels, and this library was built with them. */
ENCODER_API int encoder_supports(int kernels, int precision);

/* A model without tensors; NULL and `*result` says why, if there can be none. */
ENCODER_API struct encoder *encoder_new(const struct shape *shape, int precision, int kernels, int *result);

ENCODER_API void encoder_free(struct encoder *encoder);

/* Rows `first` to `first + rows` of a matrix, times `scale`. Several threads may put different rows. The queries' rows
 * of QKV, and their bias, are to be scaled so that the softmax of the scores is 2^score over its sum. */
ENCODER_API int encoder_put_matrix(struct encoder *encoder, int layer, int slot, int64_t first, int64_t rows,
                                   int64_t columns, const void *numbers, int number, float scale);

/* The numbers `first` to `first + count` of a vector, times `scale`. */
ENCODER_API int encoder_put_vector(struct encoder *encoder, int layer, int slot, int64_t first, int64_t count,
                                   const void *numbers, int number, float scale);

/* The vectors of the vocabulary, [vocabulary, hidden], which are read where they are for as long as the model lives. */
ENCODER_API int encoder_map_words(struct encoder *encoder, int64_t rows, int64_t columns, const void *numbers,
                                  int number);

/* Which table of rotations a layer uses, and how far its attention reaches; -1 is everywhere. */
ENCODER_API int encoder_set_layer(struct encoder *encoder, int layer, int rotation, int reach);

/* DONE if everything is there that a pass needs. */
ENCODER_API int encoder_check(const struct encoder *encoder);

/* One pass over `count` sequences, one after the other in `ids` (and in `types`, which may be NULL). `out` takes
 * [count, poolings, hidden]: what each pooling makes of a sequence's tokens, of which the first `skipped` are left out;
 * zeros if there are no others. Up to `threads` threads share the work, which changes no number. */
ENCODER_API int encoder_forward(const struct encoder *encoder, int64_t count, const int32_t *lengths,
                                const int32_t *ids, const int32_t *types, int poolings, const int32_t *pooling,
                                int64_t skipped, int64_t threads, float *out);

/* y = x W^T + bias in float32; x is [rows, inputs], W [outputs, inputs], bias NULL or [outputs]. */
ENCODER_API int encoder_linear(int kernels, int64_t rows, int64_t inputs, int64_t outputs, const float *x,
                               const float *weights, const float *bias, float *y);

#endif
