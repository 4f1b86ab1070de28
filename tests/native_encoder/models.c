#include <math.h>
#include <string.h>

#include "driver.h"

int64_t matrix_rows(const struct shape *shape, int slot) {
    return slot == QKV ? 3 * shape->hidden : slot == UP ? shape->inner * (shape->gated ? 2 : 1) : shape->hidden;
}

int64_t matrix_columns(const struct shape *shape, int slot) { return slot == DOWN ? shape->inner : shape->hidden; }

int64_t longest_text(const struct shape *shape) {
    return shape->positions - (shape->padding >= 0 ? shape->padding + 1 : 0);
}

/* Half precision (IEEE 754): 5 bits of exponent, 10 of fraction. */
static uint16_t to_half(double x) {
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    int exponent;
    frexp(x = fabs(x), &exponent);
    if (x > 65504) return sign | 0x7c00;
    if (x < 0x1p-14) return sign | (uint16_t)rint(x * 0x1p24);
    return (uint16_t)(sign | (((exponent + 14) << 10) + (int)rint(ldexp(x, 11 - exponent)) - 1024));
}

static double from_half(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double size = exponent == 31 ? (fraction ? (double)NAN : (double)INFINITY)
                  : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                 : fraction * 0x1p-24;
    return bits & 0x8000 ? -size : size;
}

static size_t bytes_of(int number) { return number == OF_FLOAT32 ? 4 : 2; }

/* Writes a number as its tensor has it; what it has become. */
static double write_number(struct tensor *tensor, int64_t place, double x) {
    char *at = tensor->raw + (size_t)place * bytes_of(tensor->number);
    if (tensor->number == OF_FLOAT16) {
        uint16_t bits = to_half(x);
        memcpy(at, &bits, 2);
        return from_half(bits);
    }
    float rounded = (float)x;
    if (tensor->number == OF_FLOAT32) {
        memcpy(at, &rounded, 4);
        return rounded;
    }
    uint32_t bits;
    memcpy(&bits, &rounded, 4);
    uint16_t upper = (uint16_t)(bits >> 16);
    memcpy(at, &upper, 2);
    bits = (uint32_t)upper << 16;
    memcpy(&rounded, &bits, 4);
    return rounded;
}

/* The bytes end where the memory does, and begin anywhere. */
static struct tensor tensor_for(int64_t rows, int64_t columns) {
    static const float scales[] = {1, 1, 0.5f, 3};
    struct tensor tensor = {rows, columns, (int)between(0, NUMBERS - 1), scales[between(0, 3)], NULL, NULL, NULL};
    size_t bytes = (size_t)(rows * columns) * bytes_of(tensor.number), before = (size_t)between(0, 7);
    tensor.room = own(bytes + before);
    tensor.raw = tensor.room + before;
    tensor.values = own((size_t)(rows * columns) * sizeof(double));
    return tensor;
}

static void set(struct tensor *tensor, int64_t place, double x) {
    tensor->values[place] = write_number(tensor, place, x / tensor->scale) * tensor->scale;
}

static struct tensor random_tensor(int64_t rows, int64_t columns, double mean, double spread) {
    struct tensor tensor = tensor_for(rows, columns);
    for (int64_t i = 0; i < rows * columns; i++) set(&tensor, i, mean + spread * normal());
    return tensor;
}

static struct tensor rotation_table(const struct shape *shape) {
    int64_t half = shape->hidden / shape->heads / 2;
    struct tensor tensor = tensor_for(shape->rotations * shape->positions * 2, half);
    for (int64_t row = 0; row < tensor.rows; row++)
        for (int64_t i = 0; i < half; i++) {
            int64_t position = row / 2 % shape->positions, table = row / 2 / shape->positions;
            double angle = (double)position * pow(100.0 * (double)(table + 1), -(double)i / (double)half);
            set(&tensor, row * half + i, row % 2 ? sin(angle) : cos(angle));
        }
    return tensor;
}

static struct shape random_shape(void) {
    struct shape shape = {
        .hidden = (int32_t)(16 * (one_in(3) ? between(1, 6) : between(1, 3))),
        .inner = (int32_t)(16 * (one_in(3) ? between(1, 10) : between(1, 4))),
        .layers = (int32_t)between(1, 3),
        .vocabulary = (int32_t)between(1, 60),
        .positions = (int32_t)(one_in(3) ? between(280, 340) : between(8, 70)),
        .types = (int32_t)between(0, 3),
        .padding = one_in(3) ? (int32_t)between(0, 4) : -1,
        .activation = (int32_t)between(0, ACTIVATIONS - 1),
        .pre_norm = one_in(2),
        .gated = one_in(2),
        .rotations = one_in(2) ? 0 : (int32_t)between(1, 2),
        .relative = one_in(3),
        .eps = one_in(2) ? 1e-12f : 1e-5f,
    };
    do shape.heads = (int32_t)between(1, shape.hidden / 2);
    while (shape.hidden % shape.heads || shape.hidden / shape.heads % 2 || shape.hidden / shape.heads > 64);
    return shape;
}

static void make_layer(struct model *model, int64_t layer) {
    const struct shape *shape = &model->shape;
    struct tensor *vectors = model->layer_vectors + layer * LAYER_VECTORS;
    for (int slot = 0; slot < MATRICES; slot++) {
        struct tensor *matrix = &model->matrices[layer * MATRICES + slot];
        int64_t columns = matrix_columns(shape, slot);
        *matrix = random_tensor(matrix_rows(shape, slot), columns, 0, 1 / sqrt((double)columns));
        if (slot == QKV)
            for (int64_t i = 0; i < columns * columns; i++) matrix->values[i] *= model->query_scale;
        if (one_in(2)) vectors[slot] = random_tensor(matrix_rows(shape, slot), 1, 0, 0.1);
    }
    for (int slot = ATTENTION_NORM; slot < LAYER_VECTORS; slot += 2) {
        if (slot == ATTENTION_NORM && shape->pre_norm && !layer && one_in(2)) continue;
        vectors[slot] = random_tensor(shape->hidden, 1, 1, 0.2);
        if (one_in(2)) vectors[slot + 1] = random_tensor(shape->hidden, 1, 0, 0.1);
    }
    model->rotations[layer] = shape->rotations ? (int32_t)between(0, shape->rotations - 1) : 0;
    model->reaches[layer] = one_in(2) ? (int32_t)(one_in(2) ? between(0, 3) : between(4, 80)) : -1;
}

static void *zeros(size_t bytes) { return memset(own(bytes), 0, bytes); }

struct model *random_model(void) {
    struct model *model = zeros(sizeof *model);
    struct shape *shape = &model->shape;
    *shape = random_shape();
    size_t layers = (size_t)shape->layers;
    model->query_scale = (float)(log2(exp(1)) / sqrt(shape->hidden / shape->heads));
    model->matrices = zeros(layers * MATRICES * sizeof *model->matrices);
    model->layer_vectors = zeros(layers * LAYER_VECTORS * sizeof *model->layer_vectors);
    model->rotations = zeros(layers * sizeof *model->rotations);
    model->reaches = zeros(layers * sizeof *model->reaches);
    for (int64_t layer = 0; layer < shape->layers; layer++) make_layer(model, layer);
    model->words = tensor_for(shape->vocabulary, shape->hidden);
    model->words.scale = 1;
    for (int64_t i = 0; i < model->words.rows * model->words.columns; i++) set(&model->words, i, normal());
    struct tensor *vectors = model->vectors;
    vectors[EMBEDDING_NORM] = random_tensor(shape->hidden, 1, 1, 0.2);
    if (one_in(2)) vectors[EMBEDDING_NORM_BIAS] = random_tensor(shape->hidden, 1, 0, 0.1);
    if (!shape->rotations) vectors[POSITION_TABLE] = random_tensor(shape->positions, shape->hidden, 0, 1);
    if (shape->types) vectors[TYPE_TABLE] = random_tensor(shape->types, shape->hidden, 0, 0.5);
    if (shape->pre_norm) vectors[FINAL_NORM] = random_tensor(shape->hidden, 1, 1, 0.2);
    if (shape->pre_norm && one_in(2)) vectors[FINAL_NORM_BIAS] = random_tensor(shape->hidden, 1, 0, 0.1);
    if (shape->rotations) vectors[ROTATION_TABLE] = rotation_table(shape);
    if (shape->relative) vectors[RELATIVE_TABLE] = random_tensor(shape->heads, 2 * shape->positions - 1, 0, 1);
    return model;
}

static void free_tensors(struct tensor *tensors, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        disown(tensors[i].room);
        disown(tensors[i].values);
    }
}

void free_model(struct model *model) {
    free_tensors(&model->words, 1);
    free_tensors(model->matrices, model->shape.layers * MATRICES);
    free_tensors(model->layer_vectors, model->shape.layers * LAYER_VECTORS);
    free_tensors(model->vectors, VECTORS);
    disown(model->matrices), disown(model->layer_vectors), disown(model->rotations), disown(model->reaches);
    disown(model);
}

#define AGAIN(call)                                                                                                    \
    do {                                                                                                               \
        int result = call;                                                                                             \
        if (result == NO_MEMORY) result = call;                                                                        \
        if (result != DONE) return result;                                                                             \
    } while (0)

static int put_matrix(struct encoder *encoder, const struct model *model, int layer, int slot) {
    const struct tensor *matrix = &model->matrices[layer * MATRICES + slot];
    for (int64_t row = 0, rows; row < matrix->rows; row += rows) {
        bool is_query = slot == QKV && row < model->shape.hidden;
        int64_t left = (is_query ? model->shape.hidden : matrix->rows) - row;
        rows = one_in(2) ? left : between(1, left);
        const char *from = matrix->raw + (size_t)(row * matrix->columns) * bytes_of(matrix->number);
        AGAIN(encoder_put_matrix(encoder, layer, slot, row, rows, matrix->columns, from, matrix->number,
                                 matrix->scale * (is_query ? model->query_scale : 1)));
    }
    return DONE;
}

static int put_vector(struct encoder *encoder, const struct tensor *vector, int layer, int slot) {
    int64_t all = vector->rows * vector->columns;
    for (int64_t first = 0, count; first < all; first += count) {
        count = one_in(2) ? all - first : between(1, all - first);
        const char *from = vector->raw + (size_t)first * bytes_of(vector->number);
        AGAIN(encoder_put_vector(encoder, layer, slot, first, count, from, vector->number, vector->scale));
    }
    return DONE;
}

int fill(struct encoder *encoder, const struct model *model) {
    for (int layer = 0; layer < model->shape.layers; layer++)
        for (int slot = 0; slot < MATRICES; slot++) AGAIN(put_matrix(encoder, model, layer, slot));
    return fill_rest(encoder, model);
}

int fill_rest(struct encoder *encoder, const struct model *model) {
    const struct shape *shape = &model->shape;
    AGAIN(encoder_map_words(encoder, shape->vocabulary, shape->hidden, model->words.raw, model->words.number));
    for (int layer = 0; layer < shape->layers; layer++) {
        for (int slot = 0; slot < LAYER_VECTORS; slot++)
            AGAIN(put_vector(encoder, &model->layer_vectors[layer * LAYER_VECTORS + slot], layer, slot));
        AGAIN(encoder_set_layer(encoder, layer, model->rotations[layer], model->reaches[layer]));
    }
    for (int slot = LAYER_VECTORS; slot < VECTORS; slot++)
        AGAIN(put_vector(encoder, &model->vectors[slot], -1, slot));
    return encoder_check(encoder);
}

struct encoder *made(const struct model *model, int precision, int kernels) {
    int result = -1;
    struct encoder *encoder = encoder_new(&model->shape, precision, kernels, &result);
    if (!encoder || result != DONE) fail("encoder_new gives %p and %d", (void *)encoder, result);
    result = fill(encoder, model);
    if (result != DONE) fail("a tensor is refused: %d", result);
    return encoder;
}

struct texts random_texts(const struct shape *shape, int64_t most_tokens) {
    struct texts texts = {.count = between(1, 7)};
    int64_t longest = longest_text(shape);
    longest = longest < 300 ? longest : 300;
    texts.lengths = own((size_t)texts.count * 4);
    for (int64_t i = 0; i < texts.count; i++) {
        int64_t most = one_in(4) ? longest : longest < 20 ? longest : 20;
        int64_t length = between(1, most);
        if (i && texts.tokens + length > most_tokens) length = 1;
        texts.lengths[i] = (int32_t)length;
        texts.tokens += length;
    }
    texts.ids = own((size_t)texts.tokens * 4);
    for (int64_t i = 0; i < texts.tokens; i++) texts.ids[i] = (int32_t)between(0, shape->vocabulary - 1);
    if (one_in(2)) {
        texts.types = own((size_t)texts.tokens * 4);
        for (int64_t i = 0; i < texts.tokens; i++)
            texts.types[i] = shape->types ? (int32_t)between(0, shape->types - 1) : 0;
    }
    return texts;
}

void free_texts(struct texts texts) { disown(texts.lengths), disown(texts.ids), disown(texts.types); }

struct texts some_texts(const struct texts *texts, int64_t count, const int64_t *chosen) {
    struct texts some = {.count = count, .lengths = own((size_t)count * 4)};
    for (int64_t i = 0; i < count; i++) some.tokens += some.lengths[i] = texts->lengths[chosen[i]];
    some.ids = own((size_t)some.tokens * 4);
    some.types = texts->types ? own((size_t)some.tokens * 4) : NULL;
    for (int64_t i = 0, to = 0; i < count; to += some.lengths[i++]) {
        int64_t from = 0;
        for (int64_t before = 0; before < chosen[i]; before++) from += texts->lengths[before];
        memcpy(some.ids + to, texts->ids + from, (size_t)some.lengths[i] * 4);
        if (texts->types) memcpy(some.types + to, texts->types + from, (size_t)some.lengths[i] * 4);
    }
    return some;
}
