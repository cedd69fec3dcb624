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
                        if (const auto* value = from(at[e], first + i))
                            sum[e] = __fmaf_rn(weight[i][lane], load(value), sum[e]);
                for (uint32_t e = 0; e < 4; ++e) out[row + e][lane] = sum[e];
            }
        }
    }
    DEVICE void clear() {
        for (uint32_t row = threadIdx.x / 32; row < GEMM_TILE; row += WARPS) out[row][threadIdx.x % 32] = 0.0f;
    }
};

// z = Wx + b with the epilogue of a node; x, y and the residual are of one type, the weights are floats.
template <class T> DEVICE void depthwise(const AffineParameters<T, float, T>& p) {
    SHARED(Held, held);
    const Layer& l = p.layer;
    uint32_t wide = (p.count + DEPTHWISE_CHANNELS - 1) / DEPTHWISE_CHANNELS, lane = threadIdx.x % 32;
    uint32_t index = blockIdx.x % wide * DEPTHWISE_CHANNELS + lane, tile = blockIdx.x / wide, pixel = tile * GEMM_TILE;
    bool there = index < p.count;
    uint32_t channel = there && p.rows ? min(p.rows[index], l.o - 1) : index, from = channel / l.outer();
    held.clear();
    __syncthreads();
    held.add(there ? p.weight + index * l.r * l.s : nullptr, l.r * l.s,
             [&](uint32_t row) { return Pixel(pixel + row, p.pixels, l.oh, l.ow); },
             [&](const Pixel& at, uint32_t tap) { return field(p.x, at, tap / l.s * l.dilation, tap % l.s * l.dilation, from, l); });
    __syncthreads();
    if (!there) return;
    finish(p, tile, channel, index, threadIdx.x / 32, WARPS, [&](uint32_t row) { return held.out[row][lane]; });
}

extern "C" __global__ void __launch_bounds__(DEPTHWISE_THREADS, 8)
conv_depthwise_f32(const __grid_constant__ AffineParameters<float, float, float> p) { depthwise(p); }
KERNEL(conv_depthwise_f32);
extern "C" __global__ void __launch_bounds__(DEPTHWISE_THREADS, 8)
conv_depthwise_bf16(const __grid_constant__ AffineParameters<bf16, float, bf16> p) { depthwise(p); }
KERNEL(conv_depthwise_bf16);
extern "C" __global__ void __launch_bounds__(DEPTHWISE_THREADS, 8)
conv_depthwise_f16(const __grid_constant__ AffineParameters<f16, float, f16> p) { depthwise(p); }
KERNEL(conv_depthwise_f16);

// dx = W^T dz, or (`add`) dx += W^T dz. Taps without an output, because of the stride, cost no product.
extern "C" __global__ void __launch_bounds__(DEPTHWISE_THREADS, 8)
conv_depthwise_data_f32(const __grid_constant__ DataParameters p) {
    SHARED(Held, held);
    const Layer& l = p.layer;
    uint32_t wide = (l.c + DEPTHWISE_CHANNELS - 1) / DEPTHWISE_CHANNELS, lane = threadIdx.x % 32;
    uint32_t channel = blockIdx.x % wide * DEPTHWISE_CHANNELS + lane, pixel = blockIdx.x / wide * GEMM_TILE;
    bool there = channel < l.c;
    const Channels channels(p.rows, p.count, min(channel, l.c - 1), l);
    held.clear();
    for (uint32_t j = 0; j < min(l.outer(), p.count); ++j) {
        bool some = there && j < channels.count;
        uint32_t from = some ? channels[j] : 0;
        held.add(some ? p.weight + (channels.first + j) * l.r * l.s : nullptr, l.r * l.s,
                 [&](uint32_t row) { return Pixel(pixel + row, p.pixels, l.h, l.w); },
                 [&](const Pixel& at, uint32_t tap) {
                     uint32_t down = tap / l.s * l.dilation, right = tap % l.s * l.dilation;
                     bool one = (at.row + l.above - down) % l.stride == 0 && (at.column + l.left - right) % l.stride == 0;
                     const float* value = reader(p.dz, at, down, right, from, l);
                     return one ? value : nullptr;
                 });
    }
    if (!there) return;
    for (uint32_t row = threadIdx.x / 32 * 4; row < GEMM_TILE; row += 4 * WARPS)
        for (uint32_t e = row; e < row + 4 && pixel + e < p.pixels; ++e) {
            float* to = p.dx + (pixel + e) * l.c + channel;
            *to = p.add ? *to + held.out[e][lane] : held.out[e][lane];
        }
}
KERNEL(conv_depthwise_data_f32);

// parts [chunk of `size` pixels, count, r s + 1] = for each chunk dz^T x of the given rows, each row followed by the
// sum of its dz.
extern "C" __global__ void __launch_bounds__(DEPTHWISE_THREADS, 8)
conv_depthwise_weight_f32(const __grid_constant__ WeightParameters p) {
    struct Memory { double bias[WARPS][32]; float of[WARPS][DEPTHWISE_SUMS][32]; };
    SHARED(Memory, memory);
    const Layer& l = p.layer;
    uint32_t wide = (p.count + DEPTHWISE_CHANNELS - 1) / DEPTHWISE_CHANNELS, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t taps = l.r * l.s, tall = (taps + DEPTHWISE_SUMS - 1) / DEPTHWISE_SUMS;
    uint32_t index = blockIdx.x % wide * DEPTHWISE_CHANNELS + lane, first = blockIdx.x / wide % tall * DEPTHWISE_SUMS;
    uint32_t chunk = blockIdx.x / wide / tall, begin = chunk * p.size, end = min(p.pixels, begin + p.size);
    bool there = index < p.count;
    uint32_t channel = there && p.rows ? min(p.rows[index], l.o - 1) : index, from = channel / l.outer();

    float sum[DEPTHWISE_SUMS] = {};
    double bias = 0.0;
    for (uint32_t pixel = begin + warp; there && pixel < end; pixel += WARPS) {
        const Pixel at(pixel, end, l.oh, l.ow);
        float d = p.dz[pixel * l.o + channel];
        bias += d;
        for (uint32_t t = 0; t < DEPTHWISE_SUMS; ++t) {
            uint32_t tap = first + t;
            if (tap >= taps) continue;
            const float* value = field(p.x, at, tap / l.s * l.dilation, tap % l.s * l.dilation, from, l);
            if (value) sum[t] = __fmaf_rn(d, *value, sum[t]);
        }
    }
    memory.bias[warp][lane] = bias;
    for (uint32_t t = 0; t < DEPTHWISE_SUMS; ++t) memory.of[warp][t][lane] = sum[t];
    __syncthreads();
    if (!there) return;
    float* part = p.parts + (uint64_t(chunk) * p.count + index) * (taps + 1);
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
