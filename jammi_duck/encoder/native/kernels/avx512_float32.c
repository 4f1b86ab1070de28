#ifdef __x86_64__
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")
#define WITH_AVX512
#include "../forward.h"
KERNEL_SET(avx512_float32)
#endif
