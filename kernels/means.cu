/*
means.cu: what a unit does with an image: the mean of its channel over positions, divided by its layer's uses (MATH.md,
Eq. 6), added to its column of the trace.

A block owns one image and MEANS_CHANNELS channels: thread (slice, channel) adds up every MEANS_SLICES-th position in f64,
then the slices of a channel are added in order. A warp reads neighbouring channels of one position.
*/
#include "common/gpu.h"
#include "tiles.h"

extern "C" __global__ void __launch_bounds__(MEANS_THREADS)
means_f32(float* trace, const float* z, uint32_t positions, uint32_t c, uint32_t d, uint32_t uses) {
    constexpr uint32_t SLICES = MEANS_THREADS / MEANS_CHANNELS;
    struct Sums { double of[SLICES][MEANS_CHANNELS]; };
    SHARED(Sums, sums);
    uint32_t groups = (c + MEANS_CHANNELS - 1) / MEANS_CHANNELS, image = blockIdx.x / groups;
    uint32_t slice = threadIdx.x / MEANS_CHANNELS, lane = threadIdx.x % MEANS_CHANNELS;
    uint32_t channel = blockIdx.x % groups * MEANS_CHANNELS + lane;
    double sum = 0.0;
    if (channel < c)
        for (uint32_t at = slice; at < positions; at += SLICES) sum += z[(image * positions + at) * c + channel];
    sums.of[slice][lane] = sum;
    __syncthreads();
    if (slice != 0 || channel >= c) return;
    for (uint32_t other = 1; other < SLICES; ++other) sum += sums.of[other][lane];
    float* unit = trace + uint64_t(image) * d + channel;
    *unit += float(sum * (1.0 / (double(positions) * uses)));
}
KERNEL(means_f32);
