/* Attention within one sequence. */

#ifndef ATTENTION_H
#define ATTENTION_H

#include "products.h"

#define UNSEEN (-1e30f) /* a score whose power of two is nothing */

/* Room for the attention of one head, for sequences up to some length. */
struct attention_room {
    char *keys, *values;    /* of a head, packed as a matrix is */
    float *scores;          /* [TILE_ROWS, padded length] */
    score_number *weights;  /* the same */
};

INLINE int64_t padded(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

/* The lanes of two vectors, of which those of b are counted from LANES on, at these places. */
INLINE words shuffled(words a, words b, words places) {
#ifdef __clang__
    words made = a;
    for (int lane = 0; lane < LANES; lane++)
        made[lane] = places[lane] < LANES ? a[places[lane]] : b[places[lane] - LANES];
    return made;
#else
    return __builtin_shuffle(a, b, places);
#endif
}

/* Swaps squares of `size` rows and columns, for all rows; both loops are unrolled, so that the lanes are constants. */
INLINE void swap_squares(words *rows, const int size) {
    words upper = {0}, lower = {0};
#pragma GCC unroll 16
    for (int lane = 0; lane < LANES; lane++) {
        upper[lane] = lane & size ? LANES + lane - size : lane;
        lower[lane] = lane & size ? LANES + lane : lane + size;
    }
#pragma GCC unroll 16
    for (int row = 0; row < LANES; row++)
        if (!(row & size)) {
            words above = rows[row], below = rows[row + size];
            rows[row] = shuffled(above, below, upper);
            rows[row + size] = shuffled(above, below, lower);
        }
}

/* Rows of words, [LANES, LANES], become columns. */
INLINE void transpose(words *rows) {
    if (LANES > 8) swap_squares(rows, 8);
    if (LANES > 4) swap_squares(rows, 4);
    swap_squares(rows, 2);
    swap_squares(rows, 1);
}

/* Keys become a matrix of [length, size], of which a step has so many numbers as fill 4 bytes. */
static void pack_keys(char *to, const score_number *keys, int64_t stride, int64_t length, int64_t size) {
    int64_t steps = size * (int64_t)sizeof(score_number) / 4;
    for (int64_t first = 0; first < length; first += LANES) {
        int64_t count = length - first < LANES ? length - first : LANES;
        char *panel = to + (first / PANEL * steps * PANEL + first % PANEL) * 4;
        for (int64_t step = 0; step < steps; step += LANES) {
            int64_t wide = steps - step < LANES ? steps - step : LANES;
            words square[LANES] = {0};
            const char *from = (const char *)(keys + first * stride) + 4 * step;
            if (count == LANES && wide == LANES)
#pragma GCC unroll 16
                for (int place = 0; place < LANES; place++)
                    memcpy(&square[place], from + place * stride * (int64_t)sizeof *keys, sizeof *square);
            else
                for (int64_t place = 0; place < count; place++)
                    memcpy(&square[place], from + place * stride * (int64_t)sizeof *keys, (size_t)wide * 4);
            transpose(square);
            for (int64_t i = 0; i < wide; i++) memcpy(panel + (step + i) * 4 * PANEL, &square[i], sizeof *square);
        }
    }
}

/* Values become a matrix of [size, length]; `steps` of 4 bytes hold the tokens, of which the last may be nothing. */
static void pack_values(char *to, const score_number *values, int64_t stride, int64_t length, int64_t size,
                        int64_t steps) {
    const int64_t tokens = 4 / (int64_t)sizeof(score_number);
    for (int64_t first = 0; first < size; first += PANEL, to += steps * PANEL * 4) {
        int64_t count = size - first < PANEL ? size - first : PANEL;
        for (int64_t step = 0; step < steps; step++) {
            const score_number *even = values + step * tokens * stride + first, *odd = even + stride;
            uint32_t *out = (uint32_t *)(to + step * PANEL * 4);
            if (tokens == 1)
                memcpy(out, even, (size_t)count * 4);
            else if (2 * step + 1 < length)
                for (int64_t i = 0; i < count; i++) out[i] = (uint16_t)even[i] | (uint32_t)odd[i] << 16;
            else
                for (int64_t i = 0; i < count; i++) out[i] = (uint16_t)even[i];
        }
    }
}

/* 2^score for the keys `from` to `to`, which are vectors, of a query that sees those from `low` to `high`; the sum. */
INLINE float weigh(const float *scores, score_number *weights, int64_t from, int64_t to) {
    floats most = all(UNSEEN);
    for (int64_t key = from; key < to; key += LANES) most = larger(most, load(scores + key));
    floats highest = all(largest(most)), total = all(0.0f);
    for (int64_t key = from; key < to; key += LANES) {
        floats x = power_of_two(load(scores + key) - highest);
        total += x;
        store_score_numbers(weights + key, x);
    }
    return sum(total);
}

/* The attention of the queries of one head. `qkv` is the head's part of the first token's row; rows have `stride`
 * numbers, and `hidden` apart in a row are queries, keys and values. `distances` is what is added to the score of a
 * key by its distance from the query, or NULL. `out` takes [queries, size], its rows `hidden` numbers apart. */
static void attend(const score_number *qkv, int64_t stride, int64_t hidden, int64_t size, int64_t length,
                   int64_t queries, int64_t reach, const float *distances, const struct attention_room *room,
                   float *out) {
    const int64_t numbers = 4 / (int64_t)sizeof(score_number);
    int64_t width = padded(length, PANEL), key_steps = size / numbers, value_steps = padded(length, numbers) / numbers;
    pack_keys(room->keys, qkv + hidden, stride, length, size);
    pack_values(room->values, qkv + 2 * hidden, stride, length, size, value_steps);
    for (int64_t first = 0; first < queries; first += TILE_ROWS) {
        int64_t count = queries - first < TILE_ROWS ? queries - first : TILE_ROWS;
        int64_t from = 0, to = length;
        if (reach >= 0) {
            from = first > reach ? (first - reach) / PANEL * PANEL : 0;
            to = first + count + reach < length ? first + count + reach : length;
        }
        int64_t end = padded(to, LANES);
        for (int64_t key = from; key < to; key += PANEL)
            SCORE_TILES[count]((const char *)(qkv + first * stride), stride * (int64_t)sizeof(score_number),
                               room->keys + key * key_steps * 4, key_steps, room->scores + key, width);
        float totals[TILE_ROWS];
        for (int64_t r = 0; r < count; r++) {
            float *scores = room->scores + r * width;
            int64_t query = first + r, low = from, high = to;
            if (reach >= 0) {
                low = query - reach > from ? query - reach : from;
                high = query + reach + 1 < to ? query + reach + 1 : to;
            }
            if (distances)
                for (int64_t key = from; key < to; key++) scores[key] += distances[key - query];
            for (int64_t key = from; key < low; key++) scores[key] = UNSEEN;
            for (int64_t key = high; key < end; key++) scores[key] = UNSEEN;
            totals[r] = weigh(scores, room->weights + r * width, from, end);
        }
        int64_t steps = padded(to, numbers) / numbers - from / numbers;
        for (int64_t place = 0; place < size; place += PANEL) {
            float sums[TILE_ROWS * PANEL] __attribute__((aligned(64)));
            SCORE_TILES[count]((const char *)(room->weights + from), width * (int64_t)sizeof(score_number),
                               room->values + (place * value_steps + from / numbers * PANEL) * 4, steps, sums, PANEL);
            int64_t wide = size - place < PANEL ? size - place : PANEL;
            for (int64_t r = 0; r < count; r++) {
                float share = 1.0f / totals[r], *to_row = out + (first + r) * hidden + place;
                for (int64_t i = 0; i < wide; i++) to_row[i] = sums[r * PANEL + i] * share;
            }
        }
    }
}

#endif
