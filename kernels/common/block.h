/*
block.h: sums in f64 that the WARPS warps of a block make together, in one fixed order: within a warp as stated, then over
the warps in order. All threads of the block call them.
*/
#pragma once
#include "warp.h"

// Each of `sum` added up over all threads, lanes in a butterfly: the same bits in every thread.
template <uint32_t WARPS, uint32_t COUNT> DEVICE void block_sums(double (&sum)[COUNT]) {
    struct Held { double of[COUNT][WARPS]; };
    SHARED(Held, held);
    for (uint32_t i = 0; i < COUNT; ++i)
        for (int stride = 16; stride; stride /= 2) sum[i] += __shfl_xor_sync(~0u, sum[i], stride);
    __syncthreads();  // an earlier call's sums have been read
    if (lane() == 0)
        for (uint32_t i = 0; i < COUNT; ++i) held.of[i][threadIdx.x / 32] = sum[i];
    __syncthreads();
    for (uint32_t i = 0; i < COUNT; ++i) {
        sum[i] = 0.0;
        for (uint32_t warp = 0; warp < WARPS; ++warp) sum[i] += held.of[i][warp];
    }
}

// `sum` added up over the warps, lane by lane; the first warp has the result, the others 0. Once in a kernel.
template <uint32_t WARPS> DEVICE double sum_over_warps(double sum) {
    struct Held { double of[WARPS][32]; };
    SHARED(Held, held);
    held.of[threadIdx.x / 32][lane()] = sum;
    __syncthreads();
    sum = 0.0;
    if (threadIdx.x < 32)
        for (uint32_t warp = 0; warp < WARPS; ++warp) sum += held.of[warp][lane()];
    return sum;
}
