/*
warp.h: reductions by one warp. Lane l takes items l, l + 32, .., and lanes are combined by a butterfly in a fixed
order, which gives every lane the same bits.
*/
#pragma once
#include "gpu.h"

DEVICE uint32_t lane() { return threadIdx.x % 32; }

// The index of this thread's warp over all blocks of `threads`. There can be more than 2^32 threads.
DEVICE uint32_t warp(uint32_t threads) { return blockIdx.x * (threads / 32) + threadIdx.x / 32; }

// The sum of f(0), .., f(count - 1).
template <class F> DEVICE double warp_sum(uint32_t count, F f) {
    double sum = 0.0;
    for (uint32_t i = lane(); i < count; i += 32) sum += f(i);
    for (int offset = 16; offset; offset /= 2) sum += __shfl_xor_sync(~0u, sum, offset);
    return sum;
}

// The largest of `count` values, at least one.
DEVICE float warp_max(const float* values, uint32_t count) {
    float top = values[0];
    for (uint32_t i = lane(); i < count; i += 32) top = values[i] > top ? values[i] : top;
    for (int offset = 16; offset; offset /= 2) {
        float other = __shfl_xor_sync(~0u, top, offset);
        top = other > top ? other : top;
    }
    return top;
}
