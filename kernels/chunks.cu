/*
chunks.cu: the last step of a sum over many items, for each of many parameters. Another kernel has summed every chunk of
the items in f32. Here one thread adds up the chunks of one parameter, in order, in f64.
*/
#include "common/gpu.h"
#include "tiles.h"

// dw [count, depth] += and db [count] (or null) += parts [chunks, count, depth + 1], in the order of chunks, in f64.
extern "C" __global__ void __launch_bounds__(CHUNKS_THREADS)
add_chunks_f32(float* dw, float* db, const float* parts, uint32_t count, uint32_t depth, uint32_t chunks) {
    uint32_t i = blockIdx.x * CHUNKS_THREADS + threadIdx.x, row = i / (depth + 1), column = i % (depth + 1);
    if (row >= count || (column == depth && !db)) return;
    float* to = column < depth ? dw + row * depth + column : db + row;
    double sum = 0.0;
    for (uint32_t chunk = 0; chunk < chunks; ++chunk) sum += parts[uint64_t(chunk) * count * (depth + 1) + i];
    *to += float(sum);
}
KERNEL(add_chunks_f32);
