/*
 * models FROM TO         random models of these seeds, by all kernels and in all precisions, beside a reference
 * hostile FROM TO        shapes, tensors and texts that are wrong, and numbers that are none
 * allocations FROM TO    each allocation fails in turn
 * threads FROM TO        passes of one model from several threads at once, and its matrices put by several
 * fuzz SECONDS           all of that but threads, from seeds that nobody has tried
 */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "driver.h"

enum { MOST_TOKENS = 330, THREADS = 4 };

static const char *const kernel_names[] = {"plain", "avx2", "avx512"};
static const char *const precision_names[] = {"float32", "bfloat16", "int8"};

/* How far a vector may be from the reference, as a share of its length; and the largest share that was found. */
static const double bounds[PRECISIONS] = {1e-5, 0.1, 0.3};
static double found[KERNELS][PRECISIONS], totals[KERNELS][PRECISIONS];
static int64_t compared[KERNELS][PRECISIONS];

#define FOR_EACH_SET(kernels, precision)                                                                               \
    for (int kernels = 0; kernels < KERNELS; kernels++)                                                                \
        for (int precision = 0; precision < PRECISIONS; precision++)                                                   \
            if (encoder_supports(kernels, precision))

struct asked {
    int count, modes[POOLINGS];
    int64_t skipped, threads;
};

static struct asked random_asked(void) {
    struct asked asked = {.count = one_in(2) ? 1 : (int)between(1, POOLINGS), .skipped = one_in(3) ? between(0, 6) : 0};
    asked.threads = one_in(3) ? between(2, 9) : 1;
    for (int i = 0; i < asked.count; i++) asked.modes[i] = (int)between(0, POOLINGS - 1);
    return asked;
}

static int pass(const struct encoder *encoder, const struct texts *texts, const struct asked *asked, float *out) {
    return encoder_forward(encoder, texts->count, texts->lengths, texts->ids, texts->types, asked->count, asked->modes,
                           asked->skipped, asked->threads, out);
}

static size_t out_bytes(const struct model *model, const struct texts *texts, const struct asked *asked) {
    return (size_t)(texts->count * asked->count * model->shape.hidden) * sizeof(float);
}

/* The vectors of a pass that must succeed. */
static float *vectors(const struct encoder *encoder, const struct model *model, const struct texts *texts,
                      const struct asked *asked) {
    size_t bytes = out_bytes(model, texts, asked);
    float *out = own(bytes);
    memset(out, 0xff, bytes);
    int result = pass(encoder, texts, asked, out);
    if (result != DONE) fail("a pass gives %d", result);
    return out;
}

/* Bit for bit, but that numbers that are none are alike. */
static bool are_equal(const float *a, const float *b, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i]))) return false;
    return true;
}

static void shuffle(int64_t *order, int64_t count) {
    for (int64_t i = 0; i < count; i++) order[i] = i;
    for (int64_t i = count - 1; i > 0; i--) {
        int64_t other = between(0, i), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
}

/* Texts alone, in another order, and poolings alone give the same. */
static void check_equal(const struct encoder *encoder, const struct model *model, const struct texts *texts,
                        const struct asked *asked, const float *expected) {
    int64_t size = asked->count * model->shape.hidden, order[16];
    for (int64_t text = 0; text < texts->count; text++) {
        struct texts alone = some_texts(texts, 1, &text);
        float *out = vectors(encoder, model, &alone, asked);
        if (!are_equal(out, expected + text * size, size)) fail("text %" PRId64 " alone has another vector", text);
        disown(out);
        free_texts(alone);
    }
    shuffle(order, texts->count);
    struct texts shuffled = some_texts(texts, texts->count, order);
    float *out = vectors(encoder, model, &shuffled, asked);
    for (int64_t i = 0; i < texts->count; i++)
        if (!are_equal(out + i * size, expected + order[i] * size, size))
            fail("text %" PRId64 " has another vector in another order", order[i]);
    disown(out);
    free_texts(shuffled);
    int mode = (int)between(0, asked->count - 1);
    struct asked only = {1, {asked->modes[mode]}, asked->skipped, 1};
    out = vectors(encoder, model, texts, &only);
    for (int64_t i = 0; i < texts->count; i++)
        if (!are_equal(out + i * model->shape.hidden, expected + i * size + mode * model->shape.hidden,
                       model->shape.hidden))
            fail("text %" PRId64 " has another vector by pooling %d alone", i, only.modes[0]);
    disown(out);
}

static double length_of(const double *vector, int64_t count) {
    double squares = 0;
    for (int64_t i = 0; i < count; i++) squares += vector[i] * vector[i];
    return sqrt(squares);
}

static double *references(const struct model *model, const struct texts *texts, const struct asked *asked) {
    int64_t hidden = model->shape.hidden;
    double *all = own(2 * out_bytes(model, texts, asked)), *to = all;
    for (int64_t text = 0, token = 0; text < texts->count; token += texts->lengths[text++]) {
        int64_t length = texts->lengths[text];
        double *x = own((size_t)(length * hidden) * sizeof *x);
        reference(model, length, texts->ids + token, texts->types ? texts->types + token : NULL, x);
        for (int mode = 0; mode < asked->count; mode++, to += hidden)
            reference_pool(x, length, hidden, asked->skipped, asked->modes[mode], to);
        disown(x);
    }
    return all;
}

static void check_near(const struct model *model, const struct texts *texts, const struct asked *asked,
                       const float *out, const double *expected, int kernels, int precision) {
    int64_t hidden = model->shape.hidden;
    for (int64_t i = 0; i < texts->count * asked->count; i++, out += hidden, expected += hidden) {
        double difference[256], length = length_of(expected, hidden);
        for (int64_t place = 0; place < hidden; place++) difference[place] = out[place] - expected[place];
        double share = length_of(difference, hidden) / (length + 0.05 * sqrt((double)hidden));
        if (!(share <= bounds[precision]))
            fail("%s %s is %g off (text %" PRId64 ", pooling %d)", kernel_names[kernels], precision_names[precision],
                 share, i / asked->count, asked->modes[i % asked->count]);
        totals[kernels][precision] += share;
        compared[kernels][precision]++;
        if (share > found[kernels][precision]) found[kernels][precision] = share;
    }
}

/* y = x W^T + bias, with sizes that fill no vector. */
static void check_linear(int kernels) {
    int64_t rows = between(0, 5), inputs = between(0, 70), outputs = between(0, 40);
    float *x = own((size_t)(rows * inputs) * 4), *weights = own((size_t)(outputs * inputs) * 4),
          *bias = one_in(2) ? own((size_t)outputs * 4) : NULL, *y = own((size_t)(rows * outputs) * 4);
    for (int64_t i = 0; i < rows * inputs; i++) x[i] = (float)normal();
    for (int64_t i = 0; i < outputs * inputs; i++) weights[i] = (float)normal();
    for (int64_t i = 0; bias && i < outputs; i++) bias[i] = (float)normal();
    if (encoder_linear(kernels, rows, inputs, outputs, x, weights, bias, y) != DONE) fail("no linear layer");
    for (int64_t row = 0; row < rows; row++)
        for (int64_t output = 0; output < outputs; output++) {
            double sum = bias ? bias[output] : 0;
            for (int64_t i = 0; i < inputs; i++) sum += (double)x[row * inputs + i] * weights[output * inputs + i];
            double given = y[row * outputs + output];
            if (!(fabs(sum - given) <= 1e-4)) fail("a linear layer gives %g for %g", given, sum);
        }
    disown(x), disown(weights), disown(bias), disown(y);
}

static void check_models(uint64_t from) {
    begin(from);
    struct model *model = random_model();
    struct texts texts = random_texts(&model->shape, one_in(8) ? MOST_TOKENS : 60);
    struct asked asked = random_asked();
    double *expected = references(model, &texts, &asked);
    FOR_EACH_SET(kernels, precision) {
        struct encoder *encoder = made(model, precision, kernels);
        float *out = vectors(encoder, model, &texts, &asked);
        check_near(model, &texts, &asked, out, expected, kernels, precision);
        check_equal(encoder, model, &texts, &asked, out);
        encoder_free(encoder);
        disown(out);
        if (precision == FLOAT32) check_linear(kernels);
    }
    disown(expected);
    free_texts(texts);
    free_model(model);
    if (memory_parts) fail("%" PRId64 " pieces of memory are left", memory_parts);
}

/* --- hostile --- */

static int64_t wrong_number(int64_t right) {
    static const int64_t edges[] = {0,         1,         -1,        2,         15,        16,        17,
                                    1 << 20,   1 << 21,   INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN, UINT32_MAX};
    switch (between(0, 3)) {
    case 0: return (int64_t)((uint64_t)right + (uint64_t)between(-2, 2));
    case 1: return (int64_t)draw();
    default: return edges[between(0, (int64_t)(sizeof edges / sizeof *edges) - 1)];
    }
}

/* Anything that an odd shape may have; what is too large is missing. Of the words, only the first is there. */
static void fill_with_zeros(struct encoder *encoder, const struct shape *shape) {
    static const char zeros[2 * 512];
    size_t bytes = (size_t)1 << 22;
    char *nothing = own(bytes);
    memset(nothing, 0, bytes);
    for (int layer = 0; layer < shape->layers; layer++) {
        for (int slot = 0; slot < MATRICES; slot++)
            if (encoder_put_matrix(encoder, layer, slot, 0, matrix_rows(shape, slot), matrix_columns(shape, slot),
                                   nothing, OF_BFLOAT16, 1) == BAD_TENSOR)
                fail("a matrix is refused");
        for (int slot = ATTENTION_NORM; slot < LAYER_VECTORS; slot++)
            encoder_put_vector(encoder, layer, slot, 0, shape->hidden, nothing, OF_FLOAT16, 1);
    }
    for (int slot = LAYER_VECTORS; slot < VECTORS; slot++) {
        int64_t rows = slot == POSITION_TABLE ? shape->positions : slot == TYPE_TABLE ? shape->types : 1;
        encoder_put_vector(encoder, -1, slot, 0, rows * shape->hidden, nothing, OF_FLOAT16, 1);
        encoder_put_vector(encoder, -1, slot, 0, 1, nothing, OF_FLOAT16, 1);
    }
    if (encoder_map_words(encoder, shape->vocabulary, shape->hidden, zeros, OF_FLOAT16)) fail("words are refused");
    disown(nothing);
}

static void check_wrong_shape(const struct model *model, int precision, int kernels) {
    struct shape shape = model->shape;
    static const float wrong_eps[] = {-1e-5f, NAN, INFINITY, 0, -0.0f};
    int32_t *fields = &shape.hidden;
    for (int64_t changes = between(1, 2); changes > 0; changes--)
        if (one_in(14))
            shape.eps = wrong_eps[between(0, 4)];
        else
            fields[between(0, 12)] = (int32_t)wrong_number(fields[between(0, 12)]);
    if (one_in(20)) kernels = (int)wrong_number(kernels);
    if (one_in(20)) precision = (int)wrong_number(precision);
    int result = -1;
    struct encoder *encoder = encoder_new(&shape, precision, kernels, &result);
    if (!encoder) {
        if (result != BAD_SHAPE && result != NO_MEMORY && result != NO_KERNELS) fail("no encoder, and %d", result);
        return;
    }
    if (result != DONE) fail("an encoder, and %d", result);
    if (encoder_check(encoder) != INCOMPLETE) fail("an empty encoder is complete");
    int32_t length = 1, id = 0, pooling = MEAN;
    float *out = own((size_t)shape.hidden * 4);
    int done = encoder_forward(encoder, 1, &length, &id, NULL, 1, &pooling, 0, 1, out);
    if (done != INCOMPLETE) fail("an empty encoder computes: %d", done);
    if (matrix_rows(&shape, UP) <= 1024 && shape.hidden <= 512 && shape.positions <= 1024 && shape.layers <= 8 &&
        shape.types <= 1024) {
        fill_with_zeros(encoder, &shape);
        int expected = encoder_check(encoder);
        done = encoder_forward(encoder, 1, &length, &id, NULL, 1, &pooling, 0, 1, out);
        if (done != expected && done != NO_MEMORY) fail("a pass gives %d, not %d", done, expected);
    }
    disown(out);
    encoder_free(encoder);
}

/* What is accepted reads no more than the tensor has, and what is not changes nothing. */
static void check_wrong_tensors(const struct model *model, struct encoder *encoder) {
    const struct shape *shape = &model->shape;
    int layer = (int)between(0, shape->layers - 1), slot = (int)between(0, MATRICES - 1);
    const struct tensor *matrix = &model->matrices[layer * MATRICES + slot];
    int64_t first = 0, rows = matrix->rows, columns = matrix->columns, number = matrix->number;
    int64_t *arguments[] = {&first, &rows, &columns, &number};
    int64_t *wrong = arguments[between(0, 3)];
    do {
        *wrong = wrong_number(*wrong);
        number = (int32_t)number;
    } while (first == 0 && rows == matrix->rows && columns == matrix->columns && number == matrix->number);
    bool may = columns == matrix->columns && number >= 0 && number < NUMBERS &&
               first >= 0 && rows >= 0 && first <= matrix->rows && rows <= matrix->rows - first;
    if (!may) {
        int done = encoder_put_matrix(encoder, layer, slot, first, rows, columns, matrix->raw, (int)number, 1);
        if (done != BAD_TENSOR) fail("a wrong matrix gives %d", done);
    }
    int wrong_slot = (int)wrong_number(slot), wrong_layer = (int)wrong_number(layer);
    if (wrong_slot < 0 || wrong_slot >= MATRICES || wrong_layer < 0 || wrong_layer >= shape->layers)
        if (encoder_put_matrix(encoder, wrong_layer, wrong_slot, 0, 0, columns, matrix->raw, 0, 1) != BAD_TENSOR)
            fail("a matrix of slot %d in layer %d is taken", wrong_slot, wrong_layer);
    if (wrong_layer >= -1 && wrong_layer < shape->layers) wrong_layer = -1;
    int of_layer = (int)between(0, LAYER_VECTORS - 1);
    if (encoder_put_vector(encoder, wrong_layer, of_layer, 0, 0, matrix->raw, 0, 1) != BAD_TENSOR)
        fail("a vector of layer %d is taken", wrong_layer);
    int of_all = (int)between(LAYER_VECTORS, VECTORS - 1);
    if (encoder_put_vector(encoder, layer, of_all, 0, 0, matrix->raw, 0, 1) != BAD_TENSOR)
        fail("a layer takes vector %d", of_all);
    const struct tensor *vector = &model->vectors[of_all];
    int64_t count = vector->rows * vector->columns, one = wrong_number(1), from = wrong_number(0);
    if (vector->rows && !(one >= 0 && from >= 0 && from <= count && one <= count - from) &&
        encoder_put_vector(encoder, -1, of_all, from, one, vector->raw, vector->number, 1) != BAD_TENSOR)
        fail("%" PRId64 " numbers from %" PRId64 " on are taken for %" PRId64, one, from, count);
    if (encoder_put_vector(encoder, -1, of_all, 0, 0, matrix->raw, NUMBERS, 1) != BAD_TENSOR)
        fail("numbers of no kind are taken");
    rows = wrong_number(shape->vocabulary), columns = wrong_number(shape->hidden);
    if ((rows != shape->vocabulary || columns != shape->hidden) &&
        encoder_map_words(encoder, rows, columns, model->words.raw, model->words.number) != BAD_TENSOR)
        fail("words of another size are taken");
    int rotation = (int)wrong_number(0), reach = (int)wrong_number(0);
    int done = encoder_set_layer(encoder, layer, rotation, reach);
    bool is_right = rotation >= 0 && (rotation == 0 || rotation < shape->rotations) && reach >= -1 && reach <= 1 << 20;
    if (done != (is_right ? DONE : BAD_TENSOR)) fail("rotation %d and reach %d give %d", rotation, reach, done);
    encoder_set_layer(encoder, layer, model->rotations[layer], model->reaches[layer]);
}

static bool is_readable(const struct model *model, const struct texts *texts, const struct asked *asked) {
    const struct shape *shape = &model->shape;
    bool is = asked->count >= 1 && asked->count <= POOLINGS && asked->skipped >= 0 && texts->count >= 1;
    for (int i = 0; is && i < asked->count; i++) is = asked->modes[i] >= 0 && asked->modes[i] < POOLINGS;
    for (int64_t i = 0; is && i < texts->count; i++)
        is = texts->lengths[i] >= 1 && texts->lengths[i] <= longest_text(shape);
    for (int64_t i = 0; is && i < texts->tokens; i++) {
        is = texts->ids[i] >= 0 && texts->ids[i] < shape->vocabulary;
        int types = shape->types ? shape->types : 1;
        if (texts->types) is = is && texts->types[i] >= 0 && texts->types[i] < types;
    }
    return is;
}

static void check_wrong_texts(const struct model *model, const struct encoder *encoder) {
    struct texts texts = random_texts(&model->shape, 60);
    struct asked asked = random_asked();
    switch (between(0, 6)) {
    case 0: texts.count = -between(0, INT32_MAX); break;
    case 1: {
        /* A wrong length is the only change, so that nothing is read beyond the ids. */
        int32_t *length = &texts.lengths[between(0, texts.count - 1)];
        static const int32_t edges[] = {0, -1, INT32_MIN, INT32_MAX};
        *length = one_in(2) ? (int32_t)longest_text(&model->shape) + 1 : edges[between(0, 3)];
        break;
    }
    case 2: texts.ids[between(0, texts.tokens - 1)] = (int32_t)wrong_number(model->shape.vocabulary); break;
    case 3:
        if (texts.types) texts.types[between(0, texts.tokens - 1)] = (int32_t)wrong_number(model->shape.types);
        break;
    case 4: asked.modes[between(0, asked.count - 1)] = (int)wrong_number(POOLINGS); break;
    case 5: asked.skipped = wrong_number(0); break;
    default: asked.count = one_in(2) ? -(int)between(0, 3) : POOLINGS + (int)between(1, 9);
    }
    bool is = is_readable(model, &texts, &asked);
    size_t bytes = is ? out_bytes(model, &texts, &asked) : 16;
    char *out = own(bytes);
    memset(out, 0x55, bytes);
    int done = pass(encoder, &texts, &asked, (float *)out);
    if (done != (is ? DONE : BAD_INPUT)) fail("wrong texts give %d", done);
    for (size_t i = 0; !is && i < bytes; i++)
        if (out[i] != 0x55) fail("a refused pass has written");
    disown(out);
    free_texts(texts);
}

/* Numbers that are infinite, none, or very large or small, in random places of random tensors. */
static void poison(struct tensor *tensor, float number) {
    if (!tensor->rows) return;
    for (int64_t changes = one_in(3) ? tensor->columns : 1; changes > 0; changes--) {
        int64_t place = between(0, tensor->rows * tensor->columns - 1);
        uint32_t bits;
        memcpy(&bits, &number, 4);
        uint16_t upper = (uint16_t)(bits >> 16), half = isnan(number) ? 0x7e00 : isinf(number) ? 0xfc00 : 0x7bff;
        if (tensor->number == OF_FLOAT32)
            memcpy(tensor->raw + 4 * place, &number, 4);
        else
            memcpy(tensor->raw + 2 * place, tensor->number == OF_BFLOAT16 ? &upper : &half, 2);
    }
}

static void check_poisoned(struct model *model, int precision, int kernels) {
    static const float numbers[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e30f, 1e-40f, 1e-45f, 0};
    for (int64_t changes = between(1, 4); changes > 0; changes--) {
        float number = numbers[between(0, 8)];
        switch (between(0, 3)) {
        case 0: poison(&model->words, number); break;
        case 1: poison(&model->matrices[between(0, model->shape.layers * MATRICES - 1)], number); break;
        case 2: poison(&model->layer_vectors[between(0, model->shape.layers * LAYER_VECTORS - 1)], number); break;
        default: poison(&model->vectors[between(LAYER_VECTORS, VECTORS - 1)], number);
        }
    }
    if (one_in(4)) {
        /* A whole matrix of numbers that are almost nothing. */
        struct tensor *matrix = &model->matrices[between(0, model->shape.layers * MATRICES - 1)];
        memset(matrix->raw, 0, (size_t)(matrix->rows * matrix->columns) * (matrix->number == OF_FLOAT32 ? 4 : 2));
        for (int i = 0; i < 3; i++) poison(matrix, 1e-40f);
    }
    struct encoder *encoder = made(model, precision, kernels);
    struct texts texts = random_texts(&model->shape, 60);
    struct asked asked = random_asked();
    float *out = vectors(encoder, model, &texts, &asked);
    check_equal(encoder, model, &texts, &asked, out);
    disown(out);
    encoder_free(encoder);
    free_texts(texts);
}

/* A number that is none in the vector of one word shows in the texts with that word, and in no other. */
static void check_one_word(int precision, int kernels) {
    struct model *model = random_model();
    struct texts texts = random_texts(&model->shape, 60);
    struct asked mean = {1, {MEAN}, 0, 1};
    struct encoder *encoder = made(model, precision, kernels);
    float *before = vectors(encoder, model, &texts, &mean);
    int64_t hidden = model->shape.hidden, place = texts.ids[0] * hidden + between(0, hidden - 1);
    static const float numbers[] = {NAN, INFINITY, -INFINITY};
    float number = numbers[between(0, 2)];
    uint16_t upper = isnan(number) ? 0x7fc0 : number > 0 ? 0x7f80 : 0xff80;
    if (model->words.number == OF_FLOAT32) memcpy(model->words.raw + 4 * place, &number, 4);
    uint16_t half = isnan(number) ? 0x7e00 : number > 0 ? 0x7c00 : 0xfc00;
    if (model->words.number == OF_BFLOAT16) memcpy(model->words.raw + 2 * place, &upper, 2);
    if (model->words.number == OF_FLOAT16) memcpy(model->words.raw + 2 * place, &half, 2);
    float *after = vectors(encoder, model, &texts, &mean);
    for (int64_t text = 0, token = 0; text < texts.count; token += texts.lengths[text++]) {
        bool has = false;
        for (int64_t i = token; i < token + texts.lengths[text]; i++) has = has || texts.ids[i] == texts.ids[0];
        for (int64_t i = text * hidden; i < (text + 1) * hidden; i++)
            if (has ? !isnan(after[i]) : !are_equal(before + i, after + i, 1))
                fail("text %" PRId64 " had %g and has %g, and %s the word", text, before[i], after[i],
                     has ? "has" : "has not");
    }
    disown(before), disown(after);
    encoder_free(encoder);
    free_texts(texts);
    free_model(model);
}

static void check_hostile(uint64_t from) {
    begin(from);
    struct model *model = random_model();
    FOR_EACH_SET(kernels, precision) {
        for (int i = 0; i < 8; i++) check_wrong_shape(model, precision, kernels);
        struct encoder *encoder = made(model, precision, kernels);
        struct texts texts = random_texts(&model->shape, 60);
        struct asked asked = random_asked();
        float *before = vectors(encoder, model, &texts, &asked);
        for (int i = 0; i < 8; i++) check_wrong_tensors(model, encoder);
        for (int i = 0; i < 8; i++) check_wrong_texts(model, encoder);
        float *after = vectors(encoder, model, &texts, &asked);
        if (!are_equal(before, after, (int64_t)(out_bytes(model, &texts, &asked) / 4)))
            fail("what was refused has changed a model");
        disown(before), disown(after);
        free_texts(texts);
        encoder_free(encoder);
        check_one_word(precision, kernels);
        struct model *other = random_model();
        check_poisoned(other, precision, kernels);
        free_model(other);
    }
    free_model(model);
    encoder_free(NULL);
    if (memory_parts) fail("%" PRId64 " pieces of memory are left", memory_parts);
}

/* --- allocations --- */

/* A model and a pass, of whose allocations one fails; whether it was reached. What fails is tried again. */
static bool fails_once(const struct model *model, const struct texts *texts, const struct asked *asked, int precision,
                       int kernels, int64_t which, const float *expected) {
    size_t bytes = out_bytes(model, texts, asked);
    float *out = own(bytes);
    memset(out, 0x55, bytes);
    allocations_left = which;
    int result = -1;
    struct encoder *encoder = encoder_new(&model->shape, precision, kernels, &result);
    if (!encoder) {
        if (result != NO_MEMORY) fail("without memory, encoder_new gives %d", result);
        if (memory_parts) fail("encoder_new leaves %" PRId64 " pieces of memory", memory_parts);
        encoder = encoder_new(&model->shape, precision, kernels, &result);
    }
    if (!encoder || result != DONE) fail("encoder_new gives %d", result);
    result = fill(encoder, model);
    if (result != DONE) fail("a tensor gives %d", result);
    int64_t parts = memory_parts;
    result = pass(encoder, texts, asked, out);
    if (memory_parts != parts) fail("a pass leaves %" PRId64 " pieces of memory", memory_parts - parts);
    if (result == NO_MEMORY) {
        for (size_t i = 0; i < bytes; i++)
            if (((char *)out)[i] != 0x55) fail("a pass without memory has written");
        result = pass(encoder, texts, asked, out);
    }
    if (result != DONE) fail("a pass gives %d", result);
    if (!are_equal(out, expected, (int64_t)(bytes / 4))) fail("after a failed allocation vectors are others");
    bool was_reached = allocations_left < 0;
    allocations_left = -1;
    encoder_free(encoder);
    if (memory_parts) fail("%" PRId64 " pieces of memory are left", memory_parts);
    disown(out);
    return was_reached;
}

static void check_allocations(uint64_t from) {
    begin(from);
    struct model *model = random_model();
    struct texts texts = random_texts(&model->shape, 30);
    struct asked asked = random_asked();
    FOR_EACH_SET(kernels, precision) {
        struct encoder *encoder = made(model, precision, kernels);
        float *expected = vectors(encoder, model, &texts, &asked);
        encoder_free(encoder);
        int64_t which = 0;
        while (fails_once(model, &texts, &asked, precision, kernels, which, expected)) which++;
        if (which < 10) fail("only %" PRId64 " allocations", which);
        disown(expected);
    }
    free_texts(texts);
    free_model(model);
}

/* --- threads --- */

struct worker {
    pthread_t thread;
    const struct model *model;
    struct encoder *encoder;
    int64_t number;
    const struct texts *texts;
    const struct asked *asked;
    float *const *expected;
};

static void *put_rows(void *given) {
    const struct worker *worker = given;
    for (int layer = 0; layer < worker->model->shape.layers; layer++)
        for (int slot = 0; slot < MATRICES; slot++) {
            const struct tensor *matrix = &worker->model->matrices[layer * MATRICES + slot];
            for (int64_t row = worker->number; row < matrix->rows; row += THREADS) {
                bool is_query = slot == QKV && row < worker->model->shape.hidden;
                size_t bytes = (size_t)(row * matrix->columns) * (matrix->number == OF_FLOAT32 ? 4 : 2);
                float scale = matrix->scale * (is_query ? worker->model->query_scale : 1);
                if (encoder_put_matrix(worker->encoder, layer, slot, row, 1, matrix->columns, matrix->raw + bytes,
                                       matrix->number, scale) != DONE)
                    fail("a row is refused");
            }
        }
    return NULL;
}

static void *pass_often(void *given) {
    const struct worker *worker = given;
    for (int64_t i = 0; i < 3 * THREADS; i++) {
        int64_t at = (i + worker->number) % THREADS;
        float *out = vectors(worker->encoder, worker->model, &worker->texts[at], &worker->asked[at]);
        size_t bytes = out_bytes(worker->model, &worker->texts[at], &worker->asked[at]);
        if (!are_equal(out, worker->expected[at], (int64_t)(bytes / 4))) fail("a thread has other vectors");
        disown(out);
    }
    return NULL;
}

static void run_workers(struct worker *workers, void *(*work)(void *)) {
    for (int i = 0; i < THREADS; i++) pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    for (int i = 0; i < THREADS; i++) pthread_join(workers[i].thread, NULL);
}

static void check_threads(uint64_t from) {
    begin(from);
    struct model *model = random_model();
    FOR_EACH_SET(kernels, precision) {
        struct encoder *encoder = made(model, precision, kernels);
        struct texts texts[THREADS];
        struct asked asked[THREADS];
        float *expected[THREADS];
        struct worker workers[THREADS];
        int result;
        struct encoder *shared = encoder_new(&model->shape, precision, kernels, &result);
        if (!shared) fail("no encoder: %d", result);
        for (int i = 0; i < THREADS; i++) {
            texts[i] = random_texts(&model->shape, 60);
            asked[i] = random_asked();
            expected[i] = vectors(encoder, model, &texts[i], &asked[i]);
            workers[i] = (struct worker){.model = model, .encoder = shared, .number = i, .texts = texts,
                                         .asked = asked, .expected = expected};
        }
        run_workers(workers, put_rows);
        if (fill_rest(shared, model) != DONE) fail("a tensor is refused");
        run_workers(workers, pass_often);
        for (int i = 0; i < THREADS; i++) disown(expected[i]), free_texts(texts[i]);
        encoder_free(encoder);
        encoder_free(shared);
    }
    free_model(model);
}

static void tell(void) {
    FOR_EACH_SET(kernels, precision)
        if (compared[kernels][precision])
            printf("%s %s: from the reference %.2g at most, %.2g on average\n", kernel_names[kernels],
                   precision_names[precision], found[kernels][precision],
                   totals[kernels][precision] / (double)compared[kernels][precision]);
}

int main(int count, char **words) {
    static const struct {
        const char *name;
        void (*check)(uint64_t from);
    } checks[] = {{"models", check_models}, {"hostile", check_hostile}, {"allocations", check_allocations},
                  {"threads", check_threads}};
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
        if (count == 4 && strcmp(words[1], checks[i].name) == 0) {
            uint64_t from = strtoull(words[2], NULL, 10), to = strtoull(words[3], NULL, 10);
            for (uint64_t at = from; at < to; at++) checks[i].check(at);
            tell();
            return 0;
        }
    if (count == 3 && strcmp(words[1], "fuzz") == 0) {
        time_t end = time(NULL) + atol(words[2]);
        uint64_t from = (uint64_t)time(NULL) << 20, at = from;
        for (; time(NULL) < end; at++) checks[at % 3].check(at);
        tell();
        printf("%" PRIu64 " seeds from %" PRIu64 " on\n", at - from, from);
        return 0;
    }
    fprintf(stderr, "usage: models FROM TO | hostile FROM TO | allocations FROM TO | threads FROM TO | fuzz SECONDS\n");
    return 2;
}
