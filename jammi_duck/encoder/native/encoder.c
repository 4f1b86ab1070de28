/* Models: their memory, their tensors, and the check of what comes in. */

#include "encoder.h"

#include <stdlib.h>
#include <string.h>

#include "model.h"

/* Sums of so many products of int8 fit into 32 bits. */
#define MOST_INT8_INPUTS (INT32_MAX / (255 * 127))
/* Sizes beyond these are damage, and their products would not fit into 64 bits. */
#define MOST (1 << 20)
#define MOST_LAYERS 4096

int encoder_version(void) { return ENCODER_VERSION; }

int encoder_supports(int kernels, int precision) { return kernels_for(kernels, precision) != NULL; }

void *memory(size_t bytes) { return aligned_alloc(64, (bytes + 127) / 64 * 64); }

void release(void *memory) { free(memory); }

static bool is_possible(const struct shape *s) {
    const int32_t sizes[] = {s->hidden, s->heads, s->inner, s->layers, s->vocabulary, s->positions};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i] < 1 || (sizes[i] > MOST && sizes + i != &sizes[4])) return false;
    return s->layers <= MOST_LAYERS && s->hidden % 16 == 0 && s->inner % 16 == 0 && s->hidden % s->heads == 0 &&
           s->hidden / s->heads % 2 == 0 && s->types >= 0 && s->types <= MOST && s->padding >= -1 &&
           s->padding < s->positions - 1 && s->activation >= 0 && s->activation < ACTIVATIONS &&
           s->rotations >= 0 && s->rotations <= 16 &&
           s->eps >= 0;
}

static bool is_gated(const struct encoder *e, int slot) { return slot == UP && e->shape.gated; }

static int64_t outputs_of(const struct encoder *e, int slot) {
    int64_t of[] = {3 * (int64_t)e->shape.hidden, e->shape.hidden, (int64_t)e->shape.inner << is_gated(e, slot),
                    e->shape.hidden};
    return of[slot];
}

static int64_t inputs_of(const struct encoder *e, int slot) {
    return slot == DOWN ? e->shape.inner : e->shape.hidden;
}

/* How many numbers a vector has; 0 if this shape has no such vector. */
static int64_t length_of(const struct encoder *e, int slot) {
    const struct shape *s = &e->shape;
    switch (slot) {
    case QKV_BIAS:
    case MIXED_BIAS:
    case UP_BIAS:
    case DOWN_BIAS: return outputs_of(e, slot);
    case POSITION_TABLE: return s->rotations ? 0 : (int64_t)s->positions * s->hidden;
    case TYPE_TABLE: return (int64_t)s->types * s->hidden;
    case FINAL_NORM:
    case FINAL_NORM_BIAS: return s->pre_norm ? s->hidden : 0;
    case ROTATION_TABLE: return (int64_t)s->rotations * s->positions * (s->hidden / s->heads);
    case RELATIVE_TABLE: return s->relative ? (int64_t)s->heads * (2 * s->positions - 1) : 0;
    default: return s->hidden;
    }
}

static bool is_matrix_bias(int slot) { return slot <= DOWN_BIAS; }

static bool is_bias(int slot) {
    return is_matrix_bias(slot) || slot == ATTENTION_NORM_BIAS || slot == OUTPUT_NORM_BIAS ||
           slot == EMBEDDING_NORM_BIAS || slot == FINAL_NORM_BIAS;
}

static float *zeros(int64_t count) {
    float *made = memory((size_t)count * 4);
    if (made) memset(made, 0, (size_t)count * 4);
    return made;
}

static bool make_matrix(struct encoder *e, struct matrix *matrix, int slot) {
    int64_t bytes = e->precision == INT8 ? 1 : e->precision == BFLOAT16 ? 2 : 4;
    matrix->outputs = outputs_of(e, slot);
    matrix->inputs = inputs_of(e, slot);
    matrix->panel = e->set->panel;
    matrix->steps = matrix->inputs * bytes / 4;
    matrix->gated = is_gated(e, slot);
    int64_t room = (matrix->outputs + matrix->panel - 1) / matrix->panel * matrix->panel;
    size_t size = (size_t)(room * matrix->steps) * 4;
    matrix->packed = memory(size);
    if (!matrix->packed) return false;
    if (room > matrix->outputs) memset(matrix->packed, 0, size);
    if (e->precision == INT8) {
        matrix->scales = zeros(room);
        matrix->sums = zeros(room);
        return matrix->scales && matrix->sums;
    }
    return true;
}

/* Memory for everything, so that later only numbers are missing. */
static bool make(struct encoder *e) {
    const struct shape *s = &e->shape;
    e->layers = calloc((size_t)s->layers, sizeof *e->layers);
    e->rows_put = calloc((size_t)s->layers * MATRICES, sizeof *e->rows_put);
    if (!e->layers || !e->rows_put) return false;
    for (int32_t number = 0; number < s->layers; number++) {
        struct layer *layer = &e->layers[number];
        layer->reach = -1;
        for (int slot = 0; slot < MATRICES; slot++)
            if (!make_matrix(e, &layer->matrices[slot], slot)) return false;
        for (int slot = 0; slot < LAYER_VECTORS; slot++)
            if (is_bias(slot) && !(layer->vectors[slot] = zeros(length_of(e, slot)))) return false;
    }
    for (int slot = LAYER_VECTORS; slot < VECTORS; slot++)
        if (is_bias(slot) && length_of(e, slot) && !(e->vectors[slot] = zeros(length_of(e, slot)))) return false;
    return true;
}

struct encoder *encoder_new(const struct shape *shape, int precision, int kernels, int *result) {
    const struct kernel_set *set = kernels_for(kernels, precision);
    bool is_too_wide = precision == INT8 && (shape->hidden > MOST_INT8_INPUTS || shape->inner > MOST_INT8_INPUTS);
    *result = !is_possible(shape) || is_too_wide ? BAD_SHAPE : !set ? NO_KERNELS : NO_MEMORY;
    if (*result != NO_MEMORY) return NULL;
    struct encoder *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->shape = *shape;
    e->precision = precision;
    e->set = set;
    if (!make(e)) {
        encoder_free(e);
        return NULL;
    }
    *result = DONE;
    return e;
}

void encoder_free(struct encoder *e) {
    if (!e) return;
    for (int32_t number = 0; e->layers && number < e->shape.layers; number++) {
        struct layer *layer = &e->layers[number];
        for (int slot = 0; slot < MATRICES; slot++) {
            release(layer->matrices[slot].packed);
            release(layer->matrices[slot].scales);
            release(layer->matrices[slot].sums);
        }
        for (int slot = 0; slot < LAYER_VECTORS; slot++) release(layer->vectors[slot]);
    }
    for (int slot = LAYER_VECTORS; slot < VECTORS; slot++) release(e->vectors[slot]);
    free(e->layers);
    free(e->rows_put);
    free(e);
}

static uint16_t half_at(const char *numbers, int64_t place) {
    uint16_t bits;
    memcpy(&bits, numbers + 2 * place, 2);
    return bits;
}

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static float from_float16(uint16_t bits) {
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    if (exponent == 31) return from_bits(sign | 0x7f800000 | fraction << 13);
    if (exponent) return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
    return (sign ? -1.0f : 1.0f) * (float)fraction * 0x1p-24f;
}

void read_numbers(struct source from, int64_t first, int64_t count, float *to) {
    if (from.number == OF_FLOAT32)
        memcpy(to, from.numbers + 4 * first, (size_t)count * 4);
    else
        for (int64_t i = 0; i < count; i++) {
            uint16_t bits = half_at(from.numbers, first + i);
            to[i] = from.number == OF_FLOAT16 ? from_float16(bits) : from_bits((uint32_t)bits << 16);
        }
}

static bool is_layer(const struct encoder *e, int layer) { return layer >= 0 && layer < e->shape.layers; }

static bool is_within(int64_t first, int64_t count, int64_t all) {
    return first >= 0 && count >= 0 && first <= all && count <= all - first;
}

int encoder_put_matrix(struct encoder *e, int layer, int slot, int64_t first, int64_t rows, int64_t columns,
                       const void *numbers, int number, float scale) {
    if (!is_layer(e, layer) || slot < 0 || slot >= MATRICES || number < 0 || number >= NUMBERS ||
        columns != inputs_of(e, slot) || !is_within(first, rows, outputs_of(e, slot)))
        return BAD_TENSOR;
    struct source from = {numbers, number};
    float *some = memory((size_t)(PACKED_ROWS * columns) * 4);
    if (!some) return NO_MEMORY;
    for (int64_t r = 0; r < rows; r += PACKED_ROWS) {
        int64_t count = rows - r < PACKED_ROWS ? rows - r : PACKED_ROWS;
        read_numbers(from, r * columns, count * columns, some);
        if (scale != 1.0f)
            for (int64_t i = 0; i < count * columns; i++) some[i] *= scale;
        e->set->pack(&e->layers[layer].matrices[slot], first + r, count, some);
    }
    release(some);
    __atomic_fetch_add(&e->rows_put[layer * MATRICES + slot], rows, __ATOMIC_RELAXED);
    return DONE;
}

/* Gated biases stand as the outputs of their matrix do. */
static int64_t place_in_vector(const struct encoder *e, int slot, int64_t place) {
    if (slot != UP_BIAS || !e->shape.gated) return place;
    int64_t lanes = e->set->lanes, second = place >= e->shape.inner, within = place - second * e->shape.inner;
    return within / lanes * 2 * lanes + second * lanes + within % lanes;
}

int encoder_put_vector(struct encoder *e, int layer, int slot, int64_t first, int64_t count, const void *numbers,
                       int number, float scale) {
    bool of_layer = slot >= 0 && slot < LAYER_VECTORS;
    if (slot < 0 || slot >= VECTORS || number < 0 || number >= NUMBERS || (of_layer ? !is_layer(e, layer) : layer != -1))
        return BAD_TENSOR;
    int64_t length = length_of(e, slot);
    if (!length || !is_within(first, count, length)) return BAD_TENSOR;
    float **vector = of_layer ? &e->layers[layer].vectors[slot] : &e->vectors[slot];
    if (!*vector && !(*vector = zeros(length))) return NO_MEMORY;
    struct source from = {numbers, number};
    for (int64_t i = 0; i < count; i++) {
        float x;
        read_numbers(from, i, 1, &x);
        (*vector)[place_in_vector(e, slot, first + i)] = x * scale;
    }
    return DONE;
}

int encoder_map_words(struct encoder *e, int64_t rows, int64_t columns, const void *numbers, int number) {
    if (rows != e->shape.vocabulary || columns != e->shape.hidden || !numbers || number < 0 || number >= NUMBERS)
        return BAD_TENSOR;
    e->words = numbers;
    e->words_number = number;
    return DONE;
}

int encoder_set_layer(struct encoder *e, int layer, int rotation, int reach) {
    if (!is_layer(e, layer) || rotation < 0 || (rotation && rotation >= e->shape.rotations) || reach < -1 ||
        reach > MOST)
        return BAD_TENSOR;
    e->layers[layer].rotation = rotation;
    e->layers[layer].reach = reach;
    return DONE;
}

int encoder_check(const struct encoder *e) {
    if (!e->words || !e->vectors[EMBEDDING_NORM]) return INCOMPLETE;
    for (int slot = LAYER_VECTORS; slot < VECTORS; slot++)
        if (length_of(e, slot) && !e->vectors[slot]) return INCOMPLETE;
    for (int32_t number = 0; number < e->shape.layers; number++) {
        for (int slot = 0; slot < MATRICES; slot++)
            if (e->rows_put[number * MATRICES + slot] != outputs_of(e, slot)) return INCOMPLETE;
        bool is_optional = e->shape.pre_norm && !number;
        if (!e->layers[number].vectors[OUTPUT_NORM]) return INCOMPLETE;
        if (!is_optional && !e->layers[number].vectors[ATTENTION_NORM]) return INCOMPLETE;
    }
    return DONE;
}

/* Whether a model can read these tokens; sets what a pass knows of them. */
static bool is_readable(const struct encoder *e, struct pass *pass) {
    const struct shape *s = &e->shape;
    if (pass->count < 1 || pass->skipped < 0 || pass->poolings < 1 || pass->poolings > POOLINGS) return false;
    for (int i = 0; i < pass->poolings; i++)
        if (pass->pooling[i] < 0 || pass->pooling[i] >= POOLINGS) return false;
    for (int64_t i = 0; i < pass->count; i++) {
        int64_t length = pass->lengths[i];
        if (length < 1 || length > s->positions - (s->padding >= 0 ? s->padding + 1 : 0)) return false;
        pass->longest = length > pass->longest ? length : pass->longest;
        pass->tokens += length;
    }
    for (int64_t i = 0; i < pass->tokens; i++) {
        if (pass->ids[i] < 0 || pass->ids[i] >= s->vocabulary) return false;
        if (pass->types && (pass->types[i] < 0 || pass->types[i] >= (s->types ? s->types : 1))) return false;
    }
    return true;
}

int encoder_forward(const struct encoder *e, int64_t count, const int32_t *lengths, const int32_t *ids,
                    const int32_t *types, int poolings, const int32_t *pooling, int64_t skipped, int64_t threads,
                    float *out) {
    struct pass pass = {.count = count, .lengths = lengths, .ids = ids, .types = types, .poolings = poolings,
                        .pooling = pooling, .skipped = skipped, .out = out, .members = threads};
    if (encoder_check(e) != DONE) return INCOMPLETE;
    if (!is_readable(e, &pass)) return BAD_INPUT;
    return e->set->forward(e, &pass);
}

int encoder_linear(int kernels, int64_t rows, int64_t inputs, int64_t outputs, const float *x, const float *weights,
                   const float *bias, float *y) {
    const struct kernel_set *set = kernels_for(kernels, FLOAT32);
    if (!set) return NO_KERNELS;
    if (rows < 0 || inputs < 0 || outputs < 0) return BAD_SHAPE;
    set->linear(rows, inputs, outputs, x, weights, bias, y);
    return DONE;
}
