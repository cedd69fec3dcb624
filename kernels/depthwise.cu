/*
depthwise.cu: convolutions whose groups have one input channel each, and their adjoints; layer, operands and results as
in conv.cu. Such a filter is a vector, so tensor cores have nothing to multiply it with.

    z, dx    a block has GEMM_TILE pixels and 32 channels, one per lane; weights are in shared memory, tap by tap
    dW       a block has 32 filters and a few taps; each of its four warps has every fourth pixel of a chunk

Neighbouring lanes have neighbouring channels. Every read of x and dz is therefore one line of memory, and whether a tap
lies in the image is the same for a whole warp. Sums are over taps, or pixels, in order, in f32 by fma.
*/
#include "common/affine.h"

constexpr uint32_t WARPS = DEPTHWISE_THREADS / 32;
static_assert(DEPTHWISE_CHANNELS == 32, "a lane per channel");

// Sums of a tile of pixels, and the weights of some taps.
struct Held {
    float weight[DEPTHWISE_TAPS][DEPTHWISE_CHANNELS], out[GEMM_TILE][DEPTHWISE_CHANNELS];

    // out += filter * values, at the pixels place(row) of this thread's rows of the tile. `filter` has `taps` values,
    // or is null for a lane without one; from(pixel, tap) points to the value under a tap, or is null. All threads of a
    // block call it together.
    template <class Place, class From> DEVICE void add(const float* filter, uint32_t taps, Place place, From from) {
        uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        for (uint32_t first = 0; first < taps; first += DEPTHWISE_TAPS) {
            uint32_t held = min(DEPTHWISE_TAPS, taps - first);
            __syncthreads();  // nobody reads the ones before any more
            for (uint32_t i = warp; i < held; i += WARPS) weight[i][lane] = filter ? filter[first + i] : 0.0f;
            __syncthreads();
            if (!filter) continue;
            for (uint32_t row = 4 * warp; row < GEMM_TILE; row += 4 * WARPS) {
                const Pixel at[4] = {place(row), place(row + 1), place(row + 2), place(row + 3)};
                float sum[4];
                for (uint32_t e = 0; e < 4; ++e) sum[e] = out[row + e][lane];
                for (uint32_t i = 0; i < held; ++i)
                    for (uint32_t e = 0; e < 4; ++e)
                        if (const float* value = from(at[e], first + i))
                            sum[e] = __fmaf_rn(weight[i][lane], *value, sum[e]);
                for (uint32_t e = 0; e < 4; ++e) out[row + e][lane] = sum[e];
            }
        }
    }
    DEVICE void clear() {
        for (uint32_t row = threadIdx.x / 32; row < GEMM_TILE; row += WARPS) out[row][threadIdx.x % 32] = 0.0f;
    }
};

extern "C" __global__ void __launch_bounds__(DEPTHWISE_THREADS, 8)
conv_depthwise_f32(CONV_PARAMETERS) {
    SHARED(Held, held);
    const Layer l{h, w, c, oh, ow, o, r, s, stride, above, left, dilation, groups};
    uint32_t wide = (count + DEPTHWISE_CHANNELS - 1) / DEPTHWISE_CHANNELS, lane = threadIdx.x % 32;
    uint32_t index = blockIdx.x % wide * DEPTHWISE_CHANNELS + lane, tile = blockIdx.x / wide, pixel = tile * GEMM_TILE;
    bool there = index < count;
    uint32_t channel = there && rows ? min(rows[index], o - 1) : index, from = channel / l.outer();
    held.clear();
    __syncthreads();
    held.add(there ? weight + index * r * s : nullptr, r * s,
             [&](uint32_t row) { return Pixel(pixel + row, pixels, oh, ow); },
             [&](const Pixel& at, uint32_t tap) { return field(x, at, tap / s * dilation, tap % s * dilation, from, l); });
    __syncthreads();
    if (!there) return;
    const Node node{y, parts, bias, scale, shift, residual, pixels, oh * ow, o, segments, activation, add};
    node.finish(tile, channel, index, threadIdx.x / 32, WARPS, [&](uint32_t row) { return held.out[row][lane]; });
}
KERNEL(conv_depthwise_f32);

// dx = W^T dz, or (`add`) dx += W^T dz. Taps without an output, because of the stride, cost no product.
extern "C" __global__ void __launch_bounds__(DEPTHWISE_THREADS, 8)
conv_depthwise_data_f32(CONV_DATA_PARAMETERS) {
    SHARED(Held, held);
    const Layer l{h, w, c, oh, ow, o, r, s, stride, above, left, dilation, groups};
    uint32_t wide = (c + DEPTHWISE_CHANNELS - 1) / DEPTHWISE_CHANNELS, lane = threadIdx.x % 32;
    uint32_t channel = blockIdx.x % wide * DEPTHWISE_CHANNELS + lane, pixel = blockIdx.x / wide * GEMM_TILE;
    bool there = channel < c;
    const Channels channels(rows, count, min(channel, c - 1), l);
    held.clear();
    for (uint32_t j = 0; j < min(l.outer(), count); ++j) {
        bool some = there && j < channels.count;
        uint32_t from = some ? channels[j] : 0;
        held.add(some ? weight + (channels.first + j) * r * s : nullptr, r * s,
                 [&](uint32_t row) { return Pixel(pixel + row, pixels, h, w); },
                 [&](const Pixel& at, uint32_t tap) {
                     uint32_t down = tap / s * dilation, right = tap % s * dilation;
                     bool one = (at.row + above - down) % stride == 0 && (at.column + left - right) % stride == 0;
                     const float* value = reader(dz, at, down, right, from, l);
                     return one ? value : nullptr;
                 });
    }
    if (!there) return;
    for (uint32_t row = threadIdx.x / 32 * 4; row < GEMM_TILE; row += 4 * WARPS)
        for (uint32_t e = row; e < row + 4 && pixel + e < pixels; ++e) {
            float* to = dx + (pixel + e) * c + channel;
            *to = add ? *to + held.out[e][lane] : held.out[e][lane];
        }
}
KERNEL(conv_depthwise_data_f32);

// parts [chunk of `size` pixels, count, r s + 1] = for each chunk dz^T x of the given rows, each row followed by the
// sum of its dz.
extern "C" __global__ void __launch_bounds__(DEPTHWISE_THREADS, 8)
conv_depthwise_weight_f32(CONV_WEIGHT_PARAMETERS) {
    struct Memory { double bias[WARPS][32]; float of[WARPS][DEPTHWISE_SUMS][32]; };
    SHARED(Memory, memory);
    const Layer l{h, w, c, oh, ow, o, r, s, stride, above, left, dilation, groups};
    uint32_t wide = (count + DEPTHWISE_CHANNELS - 1) / DEPTHWISE_CHANNELS, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t taps = r * s, tall = (taps + DEPTHWISE_SUMS - 1) / DEPTHWISE_SUMS;
    uint32_t index = blockIdx.x % wide * DEPTHWISE_CHANNELS + lane, first = blockIdx.x / wide % tall * DEPTHWISE_SUMS;
    uint32_t chunk = blockIdx.x / wide / tall, begin = chunk * size, end = min(pixels, begin + size);
    bool there = index < count;
    uint32_t channel = there && rows ? min(rows[index], o - 1) : index, from = channel / l.outer();

    float sum[DEPTHWISE_SUMS] = {};
    double bias = 0.0;
    for (uint32_t pixel = begin + warp; there && pixel < end; pixel += WARPS) {
        const Pixel at(pixel, end, oh, ow);
        float d = dz[pixel * o + channel];
        bias += d;
        for (uint32_t t = 0; t < DEPTHWISE_SUMS; ++t) {
            uint32_t tap = first + t;
            if (tap >= taps) continue;
            const float* value = field(x, at, tap / s * dilation, tap % s * dilation, from, l);
            if (value) sum[t] = __fmaf_rn(d, *value, sum[t]);
        }
    }
    memory.bias[warp][lane] = bias;
    for (uint32_t t = 0; t < DEPTHWISE_SUMS; ++t) memory.of[warp][t][lane] = sum[t];
    __syncthreads();
    if (!there) return;
    float* part = parts + (uint64_t(chunk) * count + index) * (taps + 1);
    for (uint32_t t = warp; t < DEPTHWISE_SUMS && first + t < taps; t += WARPS) {
        float all = 0.0f;
        for (uint32_t other = 0; other < WARPS; ++other) all += memory.of[other][t][lane];
        part[first + t] = all;
    }
    if (first > 0 || warp > 0) return;
    double all = 0.0;
    for (uint32_t other = 0; other < WARPS; ++other) all += memory.bias[other][lane];
    part[taps] = float(all);
}
KERNEL(conv_depthwise_weight_f32);
