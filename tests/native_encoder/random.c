#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "driver.h"

uint64_t seed;
static uint64_t state;

/* Of the sanitizers, where there are any. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void tell_seed(void) { fprintf(stderr, "the seed is %llu\n", (unsigned long long)seed); }

void begin(uint64_t from) {
    if (__sanitizer_set_death_callback) __sanitizer_set_death_callback(tell_seed);
    seed = state = from;
}

/* SplitMix64. */
uint64_t draw(void) {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int64_t between(int64_t low, int64_t high) { return low + (int64_t)(draw() % (uint64_t)(high - low + 1)); }

bool one_in(int64_t count) { return draw() % (uint64_t)count == 0; }

double normal(void) {
    double total = 0;
    for (int i = 0; i < 4; i++) total += (double)(draw() >> 11) * 0x1p-53 - 0.5;
    return total * sqrt(3);
}

void fail(const char *format, ...) {
    va_list words;
    va_start(words, format);
    vfprintf(stderr, format, words);
    va_end(words);
    fputc('\n', stderr);
    tell_seed();
    abort();
}
