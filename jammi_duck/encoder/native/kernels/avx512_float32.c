#ifdef __x86_64__
#include "../target.h"
TARGET("avx512f,avx512bw,avx512dq,avx512vl,fma")
#define WITH_AVX512
#include "../forward.h"
KERNEL_SET(avx512_float32)
END_TARGET
#endif
