/* A whole pass. The file that includes this says by which instructions and in which precision, and names the set. */

#ifndef FORWARD_H
#define FORWARD_H

#include "attention.h"
#include "pooling.h"

/* Rows that go through a layer together, so that what is between its matrices stays in the second cache. */
#ifndef BLOCK_ROWS
#define BLOCK_ROWS (padded(112, TILE_ROWS))
#endif

struct room {
    float *x, *mixed;           /* [tokens, hidden] */
    score_number *qkv;          /* [tokens, 3 * hidden] */
    struct inputs in;           /* [block, hidden] */
    char *inner;                /* [block, inner], as UP leaves it */
    struct inputs inner_in;     /* the same, as DOWN wants it */
    float *normed;              /* [hidden] */
    struct attention_room heads[MOST_MEMBERS];
    struct team *team;
};

/* Parts of one piece of memory; with NULL, they say how much is needed. */
static char *part(char **from, int64_t bytes) {
    char *here = *from;
    *from = (char *)((uintptr_t)*from + (uintptr_t)padded(bytes, 64));
    return here;
}

static struct inputs inputs_in(char **from, int64_t rows, int64_t count) {
    struct inputs made = {.stride = count * INPUT_BYTES};
    made.numbers = part(from, rows * made.stride);
    made.steps = (float *)part(from, rows * 4);
    made.lowest = (float *)part(from, rows * 4);
    return made;
}

static int64_t lay_out(struct room *room, const struct shape *shape, const struct pass *pass, char *memory) {
    char *next = memory;
    int64_t hidden = shape->hidden, size = hidden / shape->heads;
    int64_t block = pass->tokens < BLOCK_ROWS ? pass->tokens : BLOCK_ROWS;
    int64_t longest = padded(pass->longest, PANEL);
    room->x = (float *)part(&next, pass->tokens * hidden * 4);
    room->mixed = (float *)part(&next, pass->tokens * hidden * 4);
    room->qkv = (score_number *)part(&next, pass->tokens * 3 * hidden * (int64_t)sizeof(score_number));
    room->in = inputs_in(&next, block, hidden);
    room->inner = part(&next, block * shape->inner * 4);
    room->inner_in = inputs_in(&next, block, shape->inner);
    room->normed = (float *)part(&next, hidden * 4);
    for (int64_t member = 0; member < team_size(room->team); member++) {
        struct attention_room *mine = &room->heads[member];
        mine->keys = part(&next, longest * size * (int64_t)sizeof(score_number));
        mine->values = part(&next, longest * padded(size, PANEL) * (int64_t)sizeof(score_number));
        mine->scores = (float *)part(&next, TILE_ROWS * longest * 4);
        mine->weights = (score_number *)part(&next, TILE_ROWS * longest * (int64_t)sizeof(score_number));
    }
    return (int64_t)((uintptr_t)next - (uintptr_t)memory);
}

static void normalise(const float *from, float *to, const float *scales, const float *shifts, int64_t count,
                      float eps) {
    floats total = all(0.0f), squares = all(0.0f);
    for (int64_t i = 0; i < count; i += LANES) total += load(from + i);
    float mean = sum(total) / (float)count;
    for (int64_t i = 0; i < count; i += LANES) {
        floats x = load(from + i) - mean;
        squares += x * x;
    }
    float scale = 1.0f / __builtin_sqrtf(sum(squares) / (float)count + eps);
    for (int64_t i = 0; i < count; i += LANES)
        store(to + i, (load(from + i) - mean) * scale * load(scales + i) + load(shifts + i));
}

static void embed(const struct encoder *encoder, const struct pass *pass, float *x) {
    const struct shape *shape = &encoder->shape;
    int64_t hidden = shape->hidden, token = 0;
    struct source vocabulary = {encoder->words, encoder->words_number};
    const float *positions = encoder->vectors[POSITION_TABLE], *types = encoder->vectors[TYPE_TABLE];
    for (int64_t sequence = 0; sequence < pass->count; sequence++) {
        int64_t counted = 0;
        for (int64_t place = 0; place < pass->lengths[sequence]; place++, token++) {
            float *row = x + token * hidden;
            int32_t id = pass->ids[token];
            read_numbers(vocabulary, id * hidden, hidden, row);
            int64_t position = place;
            if (shape->padding >= 0) {
                counted += id != shape->padding;
                position = shape->padding + (id != shape->padding ? counted : 0);
            }
            if (positions)
                for (int64_t i = 0; i < hidden; i += LANES)
                    store(row + i, load(row + i) + load(positions + position * hidden + i));
            if (types) {
                const float *type = types + (pass->types ? pass->types[token] : 0) * hidden;
                for (int64_t i = 0; i < hidden; i += LANES) store(row + i, load(row + i) + load(type + i));
            }
            normalise(row, row, encoder->vectors[EMBEDDING_NORM], encoder->vectors[EMBEDDING_NORM_BIAS], hidden,
                      shape->eps);
        }
    }
}

INLINE float score_to_float(score_number x) {
    if (sizeof x == 4) {
        float same;
        memcpy(&same, &x, 4);
        return same;
    }
    uint32_t bits = (uint32_t)x << 16;
    float wide;
    memcpy(&wide, &bits, 4);
    return wide;
}

INLINE score_number float_to_score(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (sizeof(score_number) == 4) {
        score_number same;
        memcpy(&same, &bits, sizeof same);
        return same;
    }
    bits = x == x ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000;
    return (score_number)(bits >> 16);
}

/* Rotary position embeddings (Su et al. 2021): each pair of numbers, half a head apart, is turned by an angle. */
static void rotate(const struct encoder *encoder, const struct layer *layer, const struct pass *pass,
                   score_number *qkv) {
    int64_t hidden = encoder->shape.hidden, size = hidden / encoder->shape.heads, half = size / 2;
    const float *table = encoder->vectors[ROTATION_TABLE] + layer->rotation * encoder->shape.positions * size;
    for (int64_t sequence = 0; sequence < pass->count; sequence++)
        for (int64_t place = 0; place < pass->lengths[sequence]; place++, qkv += 3 * hidden) {
            const float *cosines = table + place * size, *sines = cosines + half;
            for (score_number *head = qkv; head < qkv + 2 * hidden; head += size)
                for (int64_t i = 0; i < half; i++) {
                    float left = score_to_float(head[i]), right = score_to_float(head[half + i]);
                    head[i] = float_to_score(left * cosines[i] - right * sines[i]);
                    head[half + i] = float_to_score(right * cosines[i] + left * sines[i]);
                }
        }
}

/* What a layer's first matrix multiplies, and that product, for `rows` rows from number `first` on. */
static void into_layer(const struct encoder *encoder, const struct layer *layer, const struct room *room,
                       int64_t first, int64_t rows) {
    int64_t hidden = encoder->shape.hidden;
    for (int64_t r = 0; r < rows; r++) {
        const float *row = room->x + (first + r) * hidden;
        if (encoder->shape.pre_norm && layer->vectors[ATTENTION_NORM]) {
            normalise(row, room->normed, layer->vectors[ATTENTION_NORM], layer->vectors[ATTENTION_NORM_BIAS], hidden,
                      encoder->shape.eps);
            row = room->normed;
        }
        write_inputs(&room->in, r, row, hidden);
    }
    multiply(room->team, (struct product){.matrix = &layer->matrices[QKV], .in = &room->in, .rows = rows,
                                          .bias = layer->vectors[QKV_BIAS], .finish = TO_SCORES,
                                          .to = (char *)(room->qkv + first * 3 * hidden),
                                          .stride = 3 * hidden * (int64_t)sizeof(score_number)});
}

struct attention {
    const struct encoder *encoder;
    const struct layer *layer;
    const struct pass *pass;
    const struct room *room;
    int only_first;
    int64_t heads; /* that a member of a team takes at a time */
};

static void attend_part(const void *work, int64_t part, int member) {
    const struct attention *a = work;
    const struct shape *shape = &a->encoder->shape;
    int64_t hidden = shape->hidden, size = hidden / shape->heads, token = 0;
    int64_t last = (part + 1) * a->heads < shape->heads ? (part + 1) * a->heads : shape->heads;
    for (int64_t sequence = 0; sequence < a->pass->count; token += a->pass->lengths[sequence++]) {
        int64_t length = a->pass->lengths[sequence];
        for (int64_t head = part * a->heads; head < last; head++) {
            const float *distances = a->encoder->vectors[RELATIVE_TABLE];
            if (distances) distances += head * (2 * shape->positions - 1) + shape->positions - 1;
            attend(a->room->qkv + token * 3 * hidden + head * size, 3 * hidden, hidden, size, length,
                   a->only_first ? 1 : length, a->layer->reach, distances, &a->room->heads[member],
                   a->room->mixed + token * hidden + head * size);
        }
    }
}

static void attend_all(const struct encoder *encoder, const struct layer *layer, const struct pass *pass,
                       const struct room *room, int only_first) {
    int64_t heads = encoder->shape.heads, members = team_size(room->team);
    struct attention all = {encoder, layer, pass, room, only_first, (heads + 2 * members - 1) / (2 * members)};
    if (members == 1) all.heads = heads;
    team_do(room->team, (heads + all.heads - 1) / all.heads, attend_part, &all);
}

/* All of a layer after its attention, for `rows` rows from number `first` on. */
static void out_of_layer(const struct encoder *encoder, const struct layer *layer, const struct room *room,
                         int64_t first, int64_t rows) {
    const struct shape *shape = &encoder->shape;
    int64_t hidden = shape->hidden;
    float *x = room->x + first * hidden;
    for (int64_t r = 0; r < rows; r++) write_inputs(&room->in, r, room->mixed + (first + r) * hidden, hidden);
    multiply(room->team, (struct product){.matrix = &layer->matrices[MIXED], .in = &room->in, .rows = rows,
                                          .bias = layer->vectors[MIXED_BIAS], .finish = ADD, .to = (char *)x,
                                          .stride = hidden * 4});
    const float *scales = layer->vectors[shape->pre_norm ? OUTPUT_NORM : ATTENTION_NORM];
    const float *shifts = layer->vectors[shape->pre_norm ? OUTPUT_NORM_BIAS : ATTENTION_NORM_BIAS];
    for (int64_t r = 0; r < rows; r++) {
        float *row = x + r * hidden, *to = shape->pre_norm ? room->normed : row;
        normalise(row, to, scales, shifts, hidden, shape->eps);
        write_inputs(&room->in, r, to, hidden);
    }
    struct product up = {.matrix = &layer->matrices[UP], .in = &room->in, .rows = rows,
                         .bias = layer->vectors[UP_BIAS], .finish = ACTIVATE, .activation = shape->activation,
                         .to = room->inner_in.numbers, .stride = room->inner_in.stride};
#ifdef IN_INT8
    up.to = room->inner;
    up.stride = shape->inner * 4;
    multiply(room->team, up);
    for (int64_t r = 0; r < rows; r++)
        write_inputs(&room->inner_in, r, (const float *)(room->inner + r * up.stride), shape->inner);
#else
    multiply(room->team, up);
#endif
    multiply(room->team, (struct product){.matrix = &layer->matrices[DOWN], .in = &room->inner_in, .rows = rows,
                                          .bias = layer->vectors[DOWN_BIAS], .finish = ADD, .to = (char *)x,
                                          .stride = hidden * 4});
    if (!shape->pre_norm)
        for (int64_t r = 0; r < rows; r++)
            normalise(x + r * hidden, x + r * hidden, layer->vectors[OUTPUT_NORM], layer->vectors[OUTPUT_NORM_BIAS],
                      hidden, shape->eps);
}

/* The first token of each sequence moves to the front. */
static void keep_firsts(const struct pass *pass, const struct room *room, int64_t hidden) {
    for (int64_t sequence = 0, token = 0; sequence < pass->count; token += pass->lengths[sequence++]) {
        memmove(room->x + sequence * hidden, room->x + token * hidden, (size_t)hidden * 4);
        memmove(room->mixed + sequence * hidden, room->mixed + token * hidden, (size_t)hidden * 4);
    }
}

/* Rows of each block, when `tokens` are cut into as few as there can be, of about the same size. */
static int64_t block_rows(int64_t tokens) {
    int64_t blocks = (tokens + BLOCK_ROWS - 1) / BLOCK_ROWS;
    return padded((tokens + blocks - 1) / blocks, TILE_ROWS);
}

static int forward(const struct encoder *encoder, const struct pass *pass) {
    const struct shape *shape = &encoder->shape;
    struct room room = {.team = team_start(pass->members)};
    int64_t bytes = lay_out(&room, shape, pass, NULL);
    char *space = memory((size_t)bytes);
    if (!space) {
        team_end(room.team);
        return NO_MEMORY;
    }
    lay_out(&room, shape, pass, space);
    embed(encoder, pass, room.x);
    int64_t rows = pass->tokens, step = block_rows(rows);
    for (int64_t first = 0; first < rows; first += step)
        into_layer(encoder, &encoder->layers[0], &room, first, rows - first < step ? rows - first : step);
    int only_first = pass->poolings == 1 && pass->pooling[0] == CLS && !pass->skipped;
    for (int32_t number = 0; number < shape->layers; number++) {
        const struct layer *layer = &encoder->layers[number];
        int is_last = number == shape->layers - 1;
        if (shape->rotations) rotate(encoder, layer, pass, room.qkv);
        attend_all(encoder, layer, pass, &room, is_last && only_first);
        if (is_last && only_first) {
            keep_firsts(pass, &room, shape->hidden);
            rows = pass->count;
            step = block_rows(rows);
        }
        for (int64_t first = 0; first < rows; first += step) {
            int64_t count = rows - first < step ? rows - first : step;
            out_of_layer(encoder, layer, &room, first, count);
            if (!is_last) into_layer(encoder, layer + 1, &room, first, count);
        }
    }
    if (shape->pre_norm)
        for (int64_t r = 0; r < rows; r++) {
            float *row = room.x + r * shape->hidden;
            normalise(row, row, encoder->vectors[FINAL_NORM], encoder->vectors[FINAL_NORM_BIAS], shape->hidden,
                      shape->eps);
        }
    if (only_first)
        memcpy(pass->out, room.x, (size_t)(pass->count * shape->hidden) * 4);
    else
        pool(pass, room.x, shape->hidden);
    release(space);
    team_end(room.team);
    return DONE;
}

/* A sum of each output alone, in the order of the inputs. */
static void linear(int64_t rows, int64_t inputs, int64_t outputs, const float *x, const float *weights,
                   const float *bias, float *y) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t output = 0; output < outputs; output++) {
            const float *a = x + row * inputs, *b = weights + output * inputs;
            floats sums = all(0.0f);
            int64_t i = 0;
            for (; i + LANES <= inputs; i += LANES) sums += load(a + i) * load(b + i);
            float total = sum(sums);
            for (; i < inputs; i++) total += a[i] * b[i];
            y[row * outputs + output] = total + (bias ? bias[output] : 0.0f);
        }
}

#define KERNEL_SET(name)                                                                                               \
    const struct kernel_set name = {                                                                                   \
        .panel = PANEL, .lanes = LANES, .pack = pack, .forward = forward, .linear = linear};

#endif
