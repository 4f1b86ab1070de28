#ifdef __x86_64__
#include "../target.h"
TARGET("avx2,fma")
#define WITH_AVX2
#include "../forward.h"
KERNEL_SET(avx2_float32)
END_TARGET
#endif
