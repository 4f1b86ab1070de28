#include "../forward.h"
KERNEL_SET(plain_float32)
