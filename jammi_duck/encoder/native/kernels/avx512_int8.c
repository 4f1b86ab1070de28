#ifdef __x86_64__
#include "../target.h"
TARGET("avx512f,avx512bw,avx512dq,avx512vl,fma,avx512vnni")
#define WITH_AVX512
#define WITH_AVX512_VNNI
#define IN_INT8
#include "../forward.h"
KERNEL_SET(avx512_int8)
END_TARGET
#endif
