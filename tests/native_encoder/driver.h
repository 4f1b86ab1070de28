/* What the parts of the driver share: random numbers, random models, and what a pass should give. */

#ifndef DRIVER_H
#define DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../jammi_duck/encoder/native/encoder.h"

/* --- random.c --- */

extern uint64_t seed; /* that is told when something fails */

void begin(uint64_t from);
uint64_t draw(void);
int64_t between(int64_t low, int64_t high); /* both may come */
bool one_in(int64_t count);
double normal(void); /* about normal, of variance 1 */

/* Ends the program with what is wrong. */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* --- allocations.c: which of the library's allocations fail, and how much memory it has --- */

extern int64_t allocations_left; /* until one fails, once; negative is never */
extern int64_t allocations_made, memory_parts;
extern size_t largest_allocation;

/* The driver's own memory, of exactly this size, which is not counted. */
void *own(size_t bytes);
void disown(void *memory);

/* --- models.c --- */

struct tensor {
    int64_t rows, columns; /* no rows: it is not put */
    int number;
    float scale;
    char *room, *raw;
    double *values; /* with the scale */
};

struct model {
    struct shape shape;
    float query_scale; /* of the queries' rows of QKV */
    struct tensor words, *matrices, *layer_vectors, vectors[VECTORS];
    int32_t *rotations, *reaches; /* of each layer */
};

struct texts {
    int64_t count, tokens;
    int32_t *lengths, *ids, *types;
};

struct model *random_model(void);
void free_model(struct model *model);

int64_t matrix_rows(const struct shape *shape, int slot);
int64_t matrix_columns(const struct shape *shape, int slot);
int64_t longest_text(const struct shape *shape);

/* Puts everything into an encoder in random pieces; the first result that is not DONE. A piece for which there was no
 * memory is put again. */
int fill(struct encoder *encoder, const struct model *model);

/* The same without the matrices. */
int fill_rest(struct encoder *encoder, const struct model *model);

/* An encoder that is complete. */
struct encoder *made(const struct model *model, int precision, int kernels);

struct texts random_texts(const struct shape *shape, int64_t most_tokens);
void free_texts(struct texts texts);

/* Some of the texts, in the order of `chosen`. */
struct texts some_texts(const struct texts *texts, int64_t count, const int64_t *chosen);

/* --- reference.c --- */

/* What a pass gives for one text, in double: [tokens, hidden]. */
void reference(const struct model *model, int64_t length, const int32_t *ids, const int32_t *types, double *x);
void reference_pool(const double *x, int64_t length, int64_t hidden, int64_t skipped, int pooling, double *to);

#endif
