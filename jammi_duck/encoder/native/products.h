/* Products with a model's matrices, in float32, bfloat16 or int8: IN_BFLOAT16, IN_INT8, or neither, says which. */

#ifndef PRODUCTS_H
#define PRODUCTS_H

#include <string.h>

#include "activations.h"
#include "model.h"
#include "team.h"
#include "tiles.h"

TILES(float32_tiles, floats, add_float32)
#ifdef WITH_AVX512_BF16
TILES(bfloat16_tiles, floats, add_bfloat16)
#endif
#ifdef IN_INT8
TILES(int8_tiles, words, add_int8)
#endif

#if defined(IN_BFLOAT16)
#define INPUT_BYTES 2
#define MATRIX_TILES bfloat16_tiles
#elif defined(IN_INT8)
#define INPUT_BYTES 1
#define MATRIX_TILES int8_tiles
#else
#define INPUT_BYTES 4
#define MATRIX_TILES float32_tiles
#endif

/* What is multiplied within a sequence is in bfloat16 only where the CPU multiplies that, and weights are rounded, too. */
#if defined(WITH_AVX512_BF16) && (defined(IN_BFLOAT16) || defined(IN_INT8))
#define SCORE_TILES bfloat16_tiles
typedef uint16_t score_number;
#else
#define SCORE_TILES float32_tiles
typedef float score_number;
#endif

#ifdef IN_INT8
#define EXACTLY 0
#else
#define EXACTLY (INPUT_BYTES == 4)
#endif

INLINE void store_score_numbers(score_number *to, floats x) {
    if (sizeof(score_number) == 2) {
        halves rounded = to_bfloat16(x);
        memcpy(to, &rounded, sizeof rounded);
    } else {
        memcpy(to, &x, sizeof x);
    }
}

INLINE floats load_score_numbers(const score_number *from) {
    return sizeof(score_number) == 2 ? from_bfloat16((const uint16_t *)from) : load((const float *)from);
}

/* The rows that a matrix multiplies. A number of INT8 is `lowest + step * byte`. */
struct inputs {
    char *numbers;
    int64_t stride; /* in bytes */
    float *steps, *lowest;
};

/* Rounds a row to what matrices multiply. */
static void write_inputs(const struct inputs *to, int64_t row, const float *from, int64_t count) {
    char *out = to->numbers + row * to->stride;
#if defined(IN_INT8)
    floats low = load(from), high = low, unreal = all(0.0f);
    for (int64_t i = 0; i < count; i += LANES) {
        floats x = load(from + i);
        low = smaller(low, x);
        high = larger(high, x);
        unreal += x * 0.0f; /* not a number, if x is infinite or none: the result must show that */
    }
    float lowest = smallest(low);
    float range = largest(high) - lowest;
    float scale = range > 0 ? 255.0f / range : 0.0f;
    const float shift = 12582912.0f; /* see power_of_two */
    for (int64_t i = 0; i < count; i += LANES) {
        words rounded = (words)((load(from + i) - lowest) * scale + shift) & 0xff;
        bytes narrow = __builtin_convertvector(rounded, bytes);
        memcpy(out + i, &narrow, sizeof narrow);
    }
    to->steps[row] = range / 255.0f + sum(unreal);
    to->lowest[row] = lowest;
#elif defined(IN_BFLOAT16)
    for (int64_t i = 0; i < count; i += LANES) {
        halves rounded = to_bfloat16(load(from + i));
        memcpy(out + 2 * i, &rounded, sizeof rounded);
    }
#else
    memcpy(out, from, (size_t)count * 4);
#endif
}

enum finish { TO_SCORES, ACTIVATE, ADD };

/* One row of a tile: its sums become what the layer needs, for `vectors` vectors of outputs from number `first` on. */
INLINE void finish_row(const struct matrix *matrix, const void *tile_row, float step, float lowest, const float *bias,
                       int64_t first, int vectors, int finish, int activation, int gated, char *to) {
    floats x[TILE_VECTORS] = {0};
    for (int v = 0; v < vectors; v++) {
        int64_t at = first + v * LANES;
#ifdef IN_INT8
        words whole;
        memcpy(&whole, (const char *)tile_row + v * sizeof whole, sizeof whole);
        x[v] = __builtin_convertvector(whole, floats) * (load(matrix->scales + at) * step) +
               (load(matrix->sums + at) * lowest + load(bias + at));
#else
        x[v] = load((const float *)tile_row + v * LANES) + load(bias + at);
#endif
    }
    (void)step, (void)lowest, (void)matrix;
    if (finish == ADD) {
        float *sums = (float *)to + first;
        for (int v = 0; v < vectors; v++) store(sums + v * LANES, load(sums + v * LANES) + x[v]);
    } else if (finish == TO_SCORES) {
        for (int v = 0; v < vectors; v++) store_score_numbers((score_number *)to + first + v * LANES, x[v]);
    } else {
        int count = gated ? 1 : vectors;
        int64_t at = gated ? first / 2 : first;
        for (int v = 0; v < count; v++) {
            floats y = activated(x[v], activation, EXACTLY);
            if (gated) y *= x[1];
#ifdef IN_BFLOAT16
            halves rounded = to_bfloat16(y);
            memcpy((uint16_t *)to + at + v * LANES, &rounded, sizeof rounded);
#else
            store((float *)to + at + v * LANES, y);
#endif
        }
    }
}

/* `rows` rows of `in` times a matrix, plus `bias`, to rows that are `stride` bytes apart. */
struct product {
    const struct matrix *matrix;
    const struct inputs *in;
    int64_t rows;
    const float *bias;
    int finish, activation;
    char *to;
    int64_t stride;
    int64_t panels; /* that a member of a team takes at a time */
};

INLINE void multiply_panel(const struct product *p, int64_t first, int finish, int activation, int gated) {
    const struct matrix *matrix = p->matrix;
    const char *panel = matrix->packed + first * matrix->steps * 4;
    int64_t left = (matrix->outputs - first) / LANES;
    int vectors = left < TILE_VECTORS ? (int)left : TILE_VECTORS;
    for (int64_t row = 0; row < p->rows; row += TILE_ROWS) {
        int64_t count = p->rows - row < TILE_ROWS ? p->rows - row : TILE_ROWS;
        float sums[TILE_ROWS * PANEL] __attribute__((aligned(64)));
        MATRIX_TILES[count](p->in->numbers + row * p->in->stride, p->in->stride, panel, matrix->steps, sums, PANEL);
        for (int64_t r = 0; r < count; r++) {
            char *to = p->to + (row + r) * p->stride;
#ifdef IN_INT8
            float step = p->in->steps[row + r], lowest = p->in->lowest[row + r];
#else
            float step = 1, lowest = 0;
#endif
            if (vectors == TILE_VECTORS)
                finish_row(matrix, sums + r * PANEL, step, lowest, p->bias, first, TILE_VECTORS, finish, activation,
                           gated, to);
            else
                finish_row(matrix, sums + r * PANEL, step, lowest, p->bias, first, vectors, finish, activation, gated,
                           to);
        }
    }
}

INLINE void activate_panel(const struct product *p, int64_t first, int gated) {
    switch (p->activation) {
    case GELU: multiply_panel(p, first, ACTIVATE, GELU, gated); break;
    case GELU_TANH: multiply_panel(p, first, ACTIVATE, GELU_TANH, gated); break;
    case RELU: multiply_panel(p, first, ACTIVATE, RELU, gated); break;
    default: multiply_panel(p, first, ACTIVATE, SILU, gated);
    }
}

static void multiply_part(const void *work, int64_t part, int member) {
    const struct product *p = work;
    int64_t first = part * p->panels * PANEL, last = first + p->panels * PANEL;
    (void)member;
    for (; first < last && first < p->matrix->outputs; first += PANEL)
        if (p->finish == ADD)
            multiply_panel(p, first, ADD, 0, 0);
        else if (p->finish == TO_SCORES)
            multiply_panel(p, first, TO_SCORES, 0, 0);
        else if (p->matrix->gated)
            activate_panel(p, first, 1);
        else
            activate_panel(p, first, 0);
}

/* Each member of a team takes panels some four times. */
static void multiply(struct team *team, struct product product) {
    int64_t panels = (product.matrix->outputs + PANEL - 1) / PANEL, members = team_size(team);
    product.panels = members > 1 ? (panels + 4 * members - 1) / (4 * members) : panels;
    team_do(team, (panels + product.panels - 1) / product.panels, multiply_part, &product);
}

/* The output of a matrix that stands at a place of its panels: of gated ones, a vector of each half in turn. */
static int64_t place_of(const struct matrix *matrix, int64_t output) {
    if (!matrix->gated) return output;
    int64_t half = matrix->outputs / 2, second = output >= half, within = output - second * half;
    return within / LANES * 2 * LANES + second * LANES + within % LANES;
}

/* A row of a matrix as it is multiplied, in place of its numbers; the output at `place` remembers what one of it is. */
static void round_row(struct matrix *matrix, int64_t place, float *row) {
#if defined(IN_INT8)
    floats size = all(0.0f), unreal = all(0.0f);
    for (int64_t i = 0; i < matrix->inputs; i += LANES) {
        floats x = load(row + i);
        size = larger(size, larger(x, -x));
        unreal += x * 0.0f; /* see write_inputs */
    }
    float most = largest(size), scale = most > 1e-36f ? 127.0f / most : 0.0f, one = most / 127.0f + sum(unreal);
    const float shift = 12582912.0f; /* see power_of_two */
    words total = all_words(0);
    for (int64_t i = 0; i < matrix->inputs; i += LANES) {
        /* What is no number becomes one, so that the total is one. */
        floats x = smaller(larger(load(row + i) * scale, all(-127.0f)), all(127.0f));
        words rounded = (words)(x + shift) - (words)all(shift);
        bytes narrow = __builtin_convertvector(rounded, bytes);
        total += rounded;
        memcpy((char *)row + i, &narrow, sizeof narrow);
    }
    matrix->scales[place] = one;
    matrix->sums[place] = sum(__builtin_convertvector(total, floats)) * one;
#elif defined(IN_BFLOAT16)
    for (int64_t i = 0; i < matrix->inputs; i += LANES) {
        halves rounded = to_bfloat16(load(row + i));
        memcpy((uint16_t *)row + i, &rounded, sizeof rounded);
    }
#endif
    (void)matrix, (void)place, (void)row;
}

/* Takes up to PACKED_ROWS rows, and does not leave their numbers as they are. */
static void pack(struct matrix *matrix, int64_t first, int64_t rows, float *numbers) {
    char *to[PACKED_ROWS];
    for (int64_t r = 0; r < rows; r++) {
        int64_t place = place_of(matrix, first + r);
        to[r] = matrix->packed + (place / PANEL * matrix->steps * PANEL + place % PANEL) * 4;
        round_row(matrix, place, numbers + r * matrix->inputs);
    }
    for (int64_t step = 0; step < matrix->steps; step++)
        for (int64_t r = 0; r < rows; r++)
            memcpy(to[r] + step * 4 * PANEL, (char *)(numbers + r * matrix->inputs) + 4 * step, 4);
}

#endif
