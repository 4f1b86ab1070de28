/* Vectors of float32 in the registers of one kind of CPU. The file that includes this says which:
 * WITH_AVX512, WITH_AVX2, or neither, for vectors of four numbers that any compiler knows. */

#ifndef VECTORS_H
#define VECTORS_H

#include <stdint.h>
#include <string.h>
#if defined(WITH_AVX512) || defined(WITH_AVX2)
#include <immintrin.h>
#endif

#if defined(WITH_AVX512)
#define LANES 16
#elif defined(WITH_AVX2)
#define LANES 8
#else
#define LANES 4
#endif

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));

#define INLINE static inline __attribute__((always_inline))

INLINE floats load(const float *from) {
    floats x;
    memcpy(&x, from, sizeof x);
    return x;
}

INLINE void store(float *to, floats x) { memcpy(to, &x, sizeof x); }

INLINE floats all(float x) { return x - (floats){0}; }

INLINE words all_words(int32_t x) { return x - (words){0}; }

/* a where the mask's bits are set, b where they are not. */
INLINE floats chosen(words mask, floats a, floats b) { return (floats)((mask & (words)a) | (~mask & (words)b)); }

/* Where one of the two is not a number, either may come out. */
INLINE floats larger(floats a, floats b) {
#if defined(WITH_AVX512)
    return (floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(WITH_AVX2)
    return (floats)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return chosen(a > b, a, b);
#endif
}

INLINE floats smaller(floats a, floats b) {
#if defined(WITH_AVX512)
    return (floats)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(WITH_AVX2)
    return (floats)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return chosen(a < b, a, b);
#endif
}

INLINE float sum(floats x) {
#if defined(WITH_AVX512)
    return _mm512_reduce_add_ps((__m512)x);
#else
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
#endif
}

INLINE float largest(floats x) {
#if defined(WITH_AVX512)
    return _mm512_reduce_max_ps((__m512)x);
#else
    float most = x[0];
    for (int i = 1; i < LANES; i++) most = x[i] > most ? x[i] : most;
    return most;
#endif
}

INLINE float smallest(floats x) { return -largest(-x); }

/* 2^x of |x| <= 0.5 within 2e-9 of it: a polynomial, fitted like that of rounded_gelu. */
INLINE floats part_of_power(floats x) {
    floats p = all(1.53458116e-4f);
    p = p * x + 1.339993121e-3f;
    p = p * x + 9.618488959e-3f;
    p = p * x + 5.550328777e-2f;
    p = p * x + 2.402264689e-1f;
    p = p * x + 6.931472057e-1f;
    return p * x + 1.0f;
}

/* 2^x, within 2 units in the last place; below 2^-126 it may be 0 or 2^-126, and above 2^127 that. What is not a number
 * stays so. */
INLINE floats power_of_two(floats x) {
#if defined(WITH_AVX512)
    __m512 whole = _mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return (floats)_mm512_scalef_ps((__m512)part_of_power(x - (floats)whole), whole);
#else
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, which stands in the lowest bits */
    floats rest = x - x;
    x = smaller(larger(x, all(-126.0f)), all(127.0f));
    floats rounded = x + shift;
    floats p = part_of_power(x - (rounded - shift));
    return (floats)((words)p + ((words)rounded << 23)) + rest;
#endif
}

/* bfloat16 is the upper half of float32; rounded to the nearest, to even ones where two are as near. */
INLINE halves to_bfloat16(floats x) {
#if defined(WITH_AVX512_BF16)
    return (halves)_mm512_cvtneps_pbh((__m512)x);
#else
    words bits = (words)x;
    words rounded = bits + 0x7fff + ((bits >> 16) & 1);
    words is_number = (words)(x == x);
    bits = (is_number & rounded) | (~is_number & (bits | 0x400000));
    return __builtin_convertvector((bits >> 16) & 0xffff, halves);
#endif
}

INLINE floats from_bfloat16(const uint16_t *from) {
    halves x;
    memcpy(&x, from, sizeof x);
    return (floats)(__builtin_convertvector(x, words) << 16);
}

#endif
