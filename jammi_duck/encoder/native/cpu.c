/* Which kernels this CPU can run. */

#include "model.h"

#ifdef __x86_64__
#include <cpuid.h>

static bool has_avx_vnni(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1u << 4;
}

static bool has_avx512_bf16(void) {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1u << 5;
}

/* These look at what the operating system saves, too. */
static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static const struct kernel_set *of_x86(int kernels, int precision) {
    __builtin_cpu_init();
    if (kernels == AVX2 && has_avx2()) {
        if (precision == FLOAT32) return &avx2_float32;
        if (precision == INT8 && has_avx_vnni()) return &avx2_int8;
    }
    if (kernels == AVX512 && has_avx512()) {
        if (precision == FLOAT32) return &avx512_float32;
        if (precision == BFLOAT16 && has_avx512_bf16()) return &avx512_bfloat16;
        if (precision == INT8 && __builtin_cpu_supports("avx512vnni"))
            return has_avx512_bf16() ? &avx512_int8_bfloat16 : &avx512_int8;
    }
    return NULL;
}
#endif

const struct kernel_set *kernels_for(int kernels, int precision) {
    if (kernels == PLAIN) return precision == FLOAT32 ? &plain_float32 : precision == INT8 ? &plain_int8 : NULL;
#ifdef __x86_64__
    return of_x86(kernels, precision);
#else
    return NULL;
#endif
}
