#include <stdlib.h>

#include "driver.h"

int64_t allocations_left = -1, allocations_made, memory_parts;
size_t largest_allocation = 1u << 23;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void __real_free(void *memory);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
void __wrap_free(void *memory);

static bool has_room(size_t bytes) {
    __atomic_add_fetch(&allocations_made, 1, __ATOMIC_RELAXED);
    if (allocations_left >= 0 && allocations_left-- == 0) return false;
    return bytes <= largest_allocation;
}

static void *counted(void *memory) {
    if (memory) __atomic_add_fetch(&memory_parts, 1, __ATOMIC_RELAXED);
    return memory;
}

void *__wrap_malloc(size_t bytes) { return has_room(bytes) ? counted(__real_malloc(bytes)) : NULL; }

void *__wrap_calloc(size_t count, size_t bytes) {
    return has_room(count * bytes) ? counted(__real_calloc(count, bytes)) : NULL;
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
    if (alignment == 0 || bytes % alignment != 0) fail("aligned_alloc(%zu, %zu)", alignment, bytes);
    return has_room(bytes) ? counted(__real_aligned_alloc(alignment, bytes)) : NULL;
}

void __wrap_free(void *memory) {
    if (memory) __atomic_sub_fetch(&memory_parts, 1, __ATOMIC_RELAXED);
    __real_free(memory);
}

void *own(size_t bytes) {
    void *memory = __real_malloc(bytes ? bytes : 1);
    if (!memory) fail("the driver has no memory for %zu bytes", bytes);
    return memory;
}

void disown(void *memory) { __real_free(memory); }
