#define IN_INT8
#include "../forward.h"
KERNEL_SET(plain_int8)
