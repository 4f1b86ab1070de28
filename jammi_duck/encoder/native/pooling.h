/* The vectors of a sequence's tokens to one, as sentence-transformers computes them. */

#ifndef POOLING_H
#define POOLING_H

#include "model.h"
#include "vectors.h"

static void pool_one(const float *rows, int64_t count, int64_t hidden, int64_t skipped, int pooling, float *to) {
    if (pooling == CLS || pooling == LAST_TOKEN) {
        memcpy(to, rows + (pooling == CLS ? 0 : count - 1) * hidden, (size_t)hidden * 4);
        return;
    }
    float whole = (float)count;
    if (pooling == MEAN_SQRT_LENGTH) whole = __builtin_sqrtf(whole);
    if (pooling == WEIGHTED_MEAN) whole = (float)count * (float)(2 * skipped + count + 1) / 2.0f;
    for (int64_t i = 0; i < hidden; i += LANES) {
        floats total = load(rows + i);
        if (pooling == WEIGHTED_MEAN) total *= (float)(skipped + 1);
        for (int64_t row = 1; row < count; row++) {
            floats x = load(rows + row * hidden + i);
            if (pooling == MAX)
                total = chosen((words)(x == x), larger(x, total), x);
            else
                total += pooling == WEIGHTED_MEAN ? x * (float)(skipped + row + 1) : x;
        }
        store(to + i, pooling == MAX ? total : total / whole);
    }
}

static void pool(const struct pass *pass, const float *x, int64_t hidden) {
    float *to = pass->out;
    for (int64_t sequence = 0; sequence < pass->count; x += pass->lengths[sequence++] * hidden) {
        int64_t left = pass->lengths[sequence] - pass->skipped;
        for (int mode = 0; mode < pass->poolings; mode++, to += hidden)
            if (left > 0)
                pool_one(x + pass->skipped * hidden, left, hidden, pass->skipped, pass->pooling[mode], to);
            else
                memset(to, 0, (size_t)hidden * 4);
    }
}

#endif
