/* Products of a few rows and one panel of a matrix, which stay in registers until they are complete.
 *
 * A step takes 4 bytes of each row: one float32, two bfloat16 or four int8. Each row's sum is made in the order of the
 * steps, however many rows there are, so that a row's products do not depend on what else is multiplied. */

#ifndef TILES_H
#define TILES_H

#include "vectors.h"

#if defined(WITH_AVX512)
#define TILE_ROWS 14
#elif defined(WITH_AVX2)
#define TILE_ROWS 6
#else
#define TILE_ROWS 4
#endif
#define TILE_VECTORS 2
#define PANEL (TILE_VECTORS * LANES)

INLINE floats add_float32(floats sum, const char *row, const char *panel) {
    float x;
    floats y;
    memcpy(&x, row, sizeof x);
    memcpy(&y, panel, sizeof y);
    return sum + x * y;
}

#ifdef WITH_AVX512_BF16
INLINE floats add_bfloat16(floats sum, const char *row, const char *panel) {
    int32_t x;
    words y;
    memcpy(&x, row, sizeof x);
    memcpy(&y, panel, sizeof y);
    return (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(x), (__m512bh)y);
}
#endif

INLINE words add_int8(words sum, const char *row, const char *panel) {
#if defined(WITH_AVX512_VNNI) || defined(WITH_AVX_VNNI)
    int32_t x;
    words y;
    memcpy(&x, row, sizeof x);
    memcpy(&y, panel, sizeof y);
#if defined(WITH_AVX512_VNNI)
    return (words)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(x), (__m512i)y);
#else
    return (words)_mm256_dpbusd_avx_epi32((__m256i)sum, _mm256_set1_epi32(x), (__m256i)y);
#endif
#else
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < 4; i++) sum[lane] += (uint8_t)row[i] * (int8_t)panel[4 * lane + i];
    return sum;
#endif
}

/* `sums` takes [rows, PANEL], its rows `apart` numbers apart; the rows that are multiplied are `stride` bytes apart. */
typedef void tile(const char *rows, int64_t stride, const char *panel, int64_t steps, float *sums, int64_t apart);

#ifndef AHEAD
#define AHEAD(panel) __builtin_prefetch(panel + 8192); __builtin_prefetch(panel + 8256);
#endif
#define TILE(name, type, add, count)                                                                                   \
    static void name##_##count(const char *rows, int64_t stride, const char *panel, int64_t steps, float *sums,        \
                               int64_t apart) {                                                                        \
        type s[count][TILE_VECTORS];                                                                                   \
        _Pragma("GCC unroll 14") for (int r = 0; r < count; r++)                                                       \
            _Pragma("GCC unroll 2") for (int v = 0; v < TILE_VECTORS; v++) s[r][v] = (type){0};                        \
        for (int64_t step = 0; step < steps; step++, rows += 4, panel += 4 * PANEL) {                                  \
            AHEAD(panel)                                                                                               \
            _Pragma("GCC unroll 14") for (int r = 0; r < count; r++)                                                   \
                _Pragma("GCC unroll 2") for (int v = 0; v < TILE_VECTORS; v++)                                         \
                    s[r][v] = add(s[r][v], rows + r * stride, panel + v * 4 * LANES);                                  \
        }                                                                                                              \
        _Pragma("GCC unroll 14") for (int r = 0; r < count; r++)                                                       \
            _Pragma("GCC unroll 2") for (int v = 0; v < TILE_VECTORS; v++)                                             \
                memcpy(sums + r * apart + v * LANES, &s[r][v], sizeof(type));                                          \
    }

#if TILE_ROWS == 14
#define TILES(name, type, add)                                                                                         \
    TILE(name, type, add, 1) TILE(name, type, add, 2) TILE(name, type, add, 3) TILE(name, type, add, 4)                \
    TILE(name, type, add, 5) TILE(name, type, add, 6) TILE(name, type, add, 7) TILE(name, type, add, 8)                \
    TILE(name, type, add, 9) TILE(name, type, add, 10) TILE(name, type, add, 11) TILE(name, type, add, 12)             \
    TILE(name, type, add, 13) TILE(name, type, add, 14)                                                                \
    static tile *const name[] = {NULL, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6, name##_7, name##_8, \
                                 name##_9, name##_10, name##_11, name##_12, name##_13, name##_14};
#elif TILE_ROWS == 6
#define TILES(name, type, add)                                                                                         \
    TILE(name, type, add, 1) TILE(name, type, add, 2) TILE(name, type, add, 3) TILE(name, type, add, 4)                \
    TILE(name, type, add, 5) TILE(name, type, add, 6)                                                                  \
    static tile *const name[] = {NULL, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6};
#else
#define TILES(name, type, add)                                                                                         \
    TILE(name, type, add, 1) TILE(name, type, add, 2) TILE(name, type, add, 3) TILE(name, type, add, 4)                \
    static tile *const name[] = {NULL, name##_1, name##_2, name##_3, name##_4};
#endif

#endif
