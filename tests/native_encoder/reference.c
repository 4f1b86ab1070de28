/* A forward pass as the papers have it, token for token, in double. */

#include <math.h>
#include <string.h>

#include "driver.h"

static void norm(const double *from, double *to, const struct tensor *scales, const struct tensor *shifts,
                 int64_t count, double eps) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < count; i++) mean += from[i] / (double)count;
    for (int64_t i = 0; i < count; i++) variance += (from[i] - mean) * (from[i] - mean) / (double)count;
    for (int64_t i = 0; i < count; i++)
        to[i] = (from[i] - mean) / sqrt(variance + eps) * scales->values[i] + (shifts->rows ? shifts->values[i] : 0);
}

static void product(const struct tensor *matrix, const struct tensor *bias, const double *x, double *y) {
    for (int64_t row = 0; row < matrix->rows; row++) {
        y[row] = bias->rows ? bias->values[row] : 0;
        for (int64_t i = 0; i < matrix->columns; i++) y[row] += matrix->values[row * matrix->columns + i] * x[i];
    }
}

static double activated(double x, int activation) {
    switch (activation) {
    case GELU: return x * 0.5 * erfc(-x / sqrt(2));
    case GELU_TANH: return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case RELU: return x > 0 ? x : 0;
    default: return x / (1 + exp(-x));
    }
}

static void embed(const struct model *model, int64_t length, const int32_t *ids, const int32_t *types, double *x) {
    const struct shape *shape = &model->shape;
    int64_t hidden = shape->hidden;
    for (int64_t token = 0; token < length; token++, x += hidden) {
        int64_t position = token, before = 0;
        if (shape->padding >= 0) {
            for (int64_t other = 0; other <= token; other++) before += ids[other] != shape->padding;
            position = shape->padding + (ids[token] == shape->padding ? 0 : before);
        }
        for (int64_t i = 0; i < hidden; i++) {
            x[i] = model->words.values[ids[token] * hidden + i];
            if (!shape->rotations) x[i] += model->vectors[POSITION_TABLE].values[position * hidden + i];
            if (shape->types) x[i] += model->vectors[TYPE_TABLE].values[(types ? types[token] : 0) * hidden + i];
        }
        norm(x, x, &model->vectors[EMBEDDING_NORM], &model->vectors[EMBEDDING_NORM_BIAS], hidden, shape->eps);
    }
}

static void rotate(double *head, int64_t size, const double *angles) {
    for (int64_t i = 0; i < size / 2; i++) {
        double left = head[i], right = head[size / 2 + i], cosine = angles[i], sine = angles[size / 2 + i];
        head[i] = left * cosine - right * sine;
        head[size / 2 + i] = left * sine + right * cosine;
    }
}

static void attend(const struct model *model, int64_t layer, int64_t length, const double *qkv, double *mixed) {
    const struct shape *shape = &model->shape;
    int64_t hidden = shape->hidden, size = hidden / shape->heads, reach = model->reaches[layer];
    double *scores = own((size_t)length * sizeof *scores);
    for (int64_t head = 0; head < shape->heads; head++)
        for (int64_t query = 0; query < length; query++) {
            double most = -INFINITY, total = 0, *to = mixed + query * hidden + head * size;
            for (int64_t key = 0; key < length; key++) {
                const double *q = qkv + query * 3 * hidden + head * size;
                const double *k = qkv + (key * 3 + 1) * hidden + head * size;
                scores[key] = 0;
                for (int64_t i = 0; i < size; i++) scores[key] += q[i] * k[i];
                if (shape->relative)
                    scores[key] += model->vectors[RELATIVE_TABLE]
                                       .values[head * (2 * shape->positions - 1) + key - query + shape->positions - 1];
                if (reach >= 0 && (key < query - reach || key > query + reach)) scores[key] = -INFINITY;
                most = fmax(most, scores[key]);
            }
            for (int64_t key = 0; key < length; key++) total += scores[key] = exp2(scores[key] - most);
            memset(to, 0, (size_t)size * sizeof *to);
            for (int64_t key = 0; key < length; key++)
                for (int64_t i = 0; i < size; i++)
                    to[i] += scores[key] / total * qkv[(key * 3 + 2) * hidden + head * size + i];
        }
    disown(scores);
}

void reference(const struct model *model, int64_t length, const int32_t *ids, const int32_t *types, double *x) {
    const struct shape *shape = &model->shape;
    int64_t hidden = shape->hidden, size = hidden / shape->heads, inner = shape->inner;
    double *qkv = own((size_t)(length * 3 * hidden) * 8), *mixed = own((size_t)(length * hidden) * 8),
           *row = own((size_t)hidden * 8), *added = own((size_t)hidden * 8), *up = own((size_t)(2 * inner) * 8);
    embed(model, length, ids, types, x);
    for (int64_t layer = 0; layer < shape->layers; layer++) {
        const struct tensor *matrices = model->matrices + layer * MATRICES;
        const struct tensor *vectors = model->layer_vectors + layer * LAYER_VECTORS;
        for (int64_t token = 0; token < length; token++) {
            memcpy(row, x + token * hidden, (size_t)hidden * 8);
            if (shape->pre_norm && vectors[ATTENTION_NORM].rows)
                norm(row, row, &vectors[ATTENTION_NORM], &vectors[ATTENTION_NORM_BIAS], hidden, shape->eps);
            double *of = qkv + token * 3 * hidden;
            product(&matrices[QKV], &vectors[QKV_BIAS], row, of);
            const double *table = model->vectors[ROTATION_TABLE].values;
            for (int64_t head = 0; shape->rotations && head < 2 * shape->heads; head++)
                rotate(of + head * size, size, table + (model->rotations[layer] * shape->positions + token) * size);
        }
        attend(model, layer, length, qkv, mixed);
        for (int64_t token = 0; token < length; token++) {
            double *of = x + token * hidden;
            product(&matrices[MIXED], &vectors[MIXED_BIAS], mixed + token * hidden, added);
            for (int64_t i = 0; i < hidden; i++) of[i] += added[i];
            int scales = shape->pre_norm ? OUTPUT_NORM : ATTENTION_NORM;
            norm(of, row, &vectors[scales], &vectors[scales + 1], hidden, shape->eps);
            if (!shape->pre_norm) memcpy(of, row, (size_t)hidden * 8);
            product(&matrices[UP], &vectors[UP_BIAS], row, up);
            for (int64_t i = 0; i < inner; i++)
                up[i] = activated(up[i], shape->activation) * (shape->gated ? up[inner + i] : 1);
            product(&matrices[DOWN], &vectors[DOWN_BIAS], up, added);
            for (int64_t i = 0; i < hidden; i++) of[i] += added[i];
            if (!shape->pre_norm) norm(of, of, &vectors[OUTPUT_NORM], &vectors[OUTPUT_NORM_BIAS], hidden, shape->eps);
        }
    }
    for (int64_t token = 0; shape->pre_norm && token < length; token++)
        norm(x + token * hidden, x + token * hidden, &model->vectors[FINAL_NORM], &model->vectors[FINAL_NORM_BIAS],
             hidden, shape->eps);
    disown(qkv), disown(mixed), disown(row), disown(added), disown(up);
}

void reference_pool(const double *x, int64_t length, int64_t hidden, int64_t skipped, int pooling, double *to) {
    for (int64_t i = 0; i < hidden; i++) {
        double sum = 0, most = -INFINITY, weighted = 0, weights = 0;
        for (int64_t token = skipped; token < length; token++) {
            double number = x[token * hidden + i];
            sum += number;
            most = fmax(most, number);
            weighted += number * (double)(token + 1);
            weights += (double)(token + 1);
        }
        double left = (double)(length - skipped);
        double all[POOLINGS] = {sum / left,
                                length > skipped ? x[skipped * hidden + i] : 0,
                                most,
                                x[(length - 1) * hidden + i],
                                weighted / weights,
                                sum / sqrt(left)};
        to[i] = length > skipped ? all[pooling] : 0;
    }
}
