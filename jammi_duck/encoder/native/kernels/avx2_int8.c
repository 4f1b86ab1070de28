#ifdef __x86_64__
#pragma GCC target("avx2,fma,avxvnni")
#define WITH_AVX2
#define WITH_AVX_VNNI
#define IN_INT8
#include "../forward.h"
KERNEL_SET(avx2_int8)
#endif
