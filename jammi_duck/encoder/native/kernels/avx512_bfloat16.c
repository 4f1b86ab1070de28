#ifdef __x86_64__
#include "../target.h"
TARGET("avx512f,avx512bw,avx512dq,avx512vl,fma,avx512bf16")
#define WITH_AVX512
#define WITH_AVX512_BF16
#define IN_BFLOAT16
#include "../forward.h"
KERNEL_SET(avx512_bfloat16)
END_TARGET
#endif
