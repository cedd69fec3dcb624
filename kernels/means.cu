/*
means.cu: the activation of a unit for an image: the mean of its channel over positions, divided by its layer's uses
(MATH.md, Eq. 6), added to its column of the trace.

conv.cu makes the sums: for each tile of pixels, one sum per image that the tile covers. One thread handles one image
and channel, and adds up the tiles of the image in order.
*/
#include "common/gpu.h"
#include "tiles.h"

extern "C" __global__ void __launch_bounds__(MEANS_THREADS)
means_f32(float* trace, const double* parts, uint32_t n, uint32_t positions, uint32_t c, uint32_t segments, uint32_t d, uint32_t uses) {
    uint32_t i = blockIdx.x * MEANS_THREADS + threadIdx.x, image = i / c, channel = i % c;
    if (image >= n) return;
    uint32_t first = image * positions, last = first + positions - 1;
    double sum = 0.0;
    for (uint32_t tile = first / GEMM_TILE; tile <= last / GEMM_TILE; ++tile) {
        uint32_t segment = image - tile * GEMM_TILE / positions;
        sum += parts[(uint64_t(tile) * segments + segment) * c + channel];
    }
    trace[uint64_t(image) * d + channel] += float(sum * (1.0 / (double(positions) * uses)));
}
KERNEL(means_f32);
