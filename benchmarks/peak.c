/* How many operations a second a core does at most with numbers that stay in registers: a limit for any product of
   matrices. arithmetic.py compiles and calls it. */

#include <immintrin.h>
#include <time.h>

enum precision { FLOAT32, BFLOAT16, INT8 };

/* Independent sums: as many as hide how long one takes, and as registers hold beside the factor. */
#define SUMS_256 12
#define SUMS_512 24

static double cpu_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Unrolled, since only then does each sum stay in a register. */
#define EACH_SUM _Pragma("GCC unroll 24") for (int at = 0; at < count; at++)

/* Defines a function that gives the seconds of so many steps, in each of which every sum grows once. The compiler does
   not know any value, or it would compute one sum for all. */
#define LOOP(name, features, vector, sums, zero, grown)                                                                \
    __attribute__((target(features), noinline)) static double name(long steps) {                                       \
        enum { count = sums };                                                                                         \
        vector sum[count], factor = zero;                                                                              \
        __asm__ volatile("" : "+x"(factor));                                                                           \
        EACH_SUM {                                                                                                     \
            sum[at] = zero;                                                                                            \
            __asm__ volatile("" : "+x"(sum[at]));                                                                      \
        }                                                                                                              \
        double began = cpu_seconds();                                                                                  \
        for (long step = 0; step < steps; step++) {                                                                    \
            EACH_SUM sum[at] = grown;                                                                                  \
        }                                                                                                              \
        EACH_SUM __asm__ volatile("" : : "x"(sum[at]));                                                                \
        return cpu_seconds() - began;                                                                                  \
    }

LOOP(float32_256, "avx2,fma", __m256, SUMS_256, _mm256_setzero_ps(), _mm256_fmadd_ps(factor, factor, sum[at]))
LOOP(float32_512, "avx512f", __m512, SUMS_512, _mm512_setzero_ps(), _mm512_fmadd_ps(factor, factor, sum[at]))
LOOP(bfloat16_512, "avx512f,avx512bf16", __m512, SUMS_512, _mm512_setzero_ps(),
     _mm512_dpbf16_ps(sum[at], (__m512bh)factor, (__m512bh)factor))
LOOP(int8_256, "avx2,avxvnni", __m256i, SUMS_256, _mm256_setzero_si256(),
     _mm256_dpbusd_avx_epi32(sum[at], factor, factor))
LOOP(int8_512, "avx512f,avx512vnni", __m512i, SUMS_512, _mm512_setzero_si512(),
     _mm512_dpbusd_epi32(sum[at], factor, factor))

static double rate(double (*loop)(long), long steps, double operations) {
    double best = 0;
    for (int turn = 0; turn < 5; turn++) {
        double found = operations * (double)steps / loop(steps) * 1e-9;
        best = found > best ? found : best;
    }
    return best;
}

/* 10^9 multiplications and additions a second of the core that this runs on, with vectors of at most so many bits; 0
   where the CPU has no instructions for it. */
double peak(int precision, int bits, long steps) {
    int is_wide = bits >= 512 && __builtin_cpu_supports("avx512f");
    switch (precision) {
    case FLOAT32:
        if (is_wide) return rate(float32_512, steps, SUMS_512 * 16 * 2);
        return __builtin_cpu_supports("fma") ? rate(float32_256, steps, SUMS_256 * 8 * 2) : 0;
    case BFLOAT16:
        return is_wide && __builtin_cpu_supports("avx512bf16") ? rate(bfloat16_512, steps, SUMS_512 * 32 * 2) : 0;
    case INT8:
        if (is_wide && __builtin_cpu_supports("avx512vnni")) return rate(int8_512, steps, SUMS_512 * 64 * 2);
        return __builtin_cpu_supports("avxvnni") ? rate(int8_256, steps, SUMS_256 * 32 * 2) : 0;
    default:
        return 0;
    }
}
