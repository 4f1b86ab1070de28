#ifdef __x86_64__
#include "../target.h"
TARGET("avx2,fma,avxvnni")
#define WITH_AVX2
#define WITH_AVX_VNNI
#define IN_INT8
#include "../forward.h"
KERNEL_SET(avx2_int8)
END_TARGET
#endif
