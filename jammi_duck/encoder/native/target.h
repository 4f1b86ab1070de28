/* Which instructions a file is compiled to: TARGET("avx2,fma"), what uses them, END_TARGET. */

#ifndef TARGET_H
#define TARGET_H

/* Before the target, since clang would give it to the declarations of the compiler's own header. */
#include <immintrin.h>

#define PRAGMA(text) _Pragma(#text)
#ifdef __clang__
#define TARGET(features) PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_TARGET PRAGMA(clang attribute pop)
#else
#define TARGET(features) PRAGMA(GCC target(features))
#define END_TARGET
#endif

#endif
