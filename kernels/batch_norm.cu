/*
batch_norm.cu: batch norm with the statistics of the batch, over the channels of NHWC (MATH.md, Eq. 10b): y = gamma x^ +
beta, x^ = (x - mean) / sqrt(var + eps); its adjoint, and its running statistics.

A block has 32 channels and a chunk of positions: lane l has channel l, and warp w every WARPS-th position. Sums are
f64: first per thread, then over the warps of the block in order, then over chunks by `batch_norm_fold`. `moments` holds
mean and (biased) variance, [2, c].
*/
#include "common/warp.h"
#include "tiles.h"

constexpr uint32_t WARPS = BATCH_NORM_THREADS / 32;

// The channel of a thread, and its positions within the block's chunk of `size`.
struct Own {
    uint32_t c, channel, chunk, first, end;
    DEVICE Own(uint32_t n, uint32_t c, uint32_t size) : c(c) {
        uint32_t wide = (c + 31) / 32;
        chunk = blockIdx.x / wide, channel = blockIdx.x % wide * 32 + lane();
        first = chunk * size + threadIdx.x / 32, end = channel < c ? min(n, chunk * size + size) : 0;
    }
    // Calls f with the index of the channel's value at each position.
    template <class F> DEVICE void each(F f) const {
        for (uint32_t at = first; at < end; at += WARPS) f(at * c + channel);
    }
};

// parts [chunks, COUNT, c] = the sums of the block's channels over its warps.
template <uint32_t COUNT> DEVICE void write_sums(double* parts, const Own& own, const double (&sum)[COUNT]) {
    struct Held { double of[COUNT][WARPS][32]; };
    SHARED(Held, held);
    for (uint32_t i = 0; i < COUNT; ++i) held.of[i][threadIdx.x / 32][lane()] = sum[i];
    __syncthreads();
    if (threadIdx.x >= 32 || own.channel >= own.c) return;
    for (uint32_t i = 0; i < COUNT; ++i) {
        double all = 0.0;
        for (uint32_t warp = 0; warp < WARPS; ++warp) all += held.of[i][warp][lane()];
        parts[(uint64_t(own.chunk) * COUNT + i) * own.c + own.channel] = all;
    }
}

// x^ of a channel.
struct Standard {
    double mean, r;
    DEVICE Standard(const double* moments, const Own& own, float eps)
        : mean(moments[own.channel]), r(1.0 / sqrt(moments[own.c + own.channel] + double(eps))) {}
    DEVICE double operator()(float x) const { return (double(x) - mean) * r; }
};

// parts [chunks, c] = sums of x, or of (x - mean)^2 where means are given.
extern "C" __global__ void __launch_bounds__(BATCH_NORM_THREADS)
batch_norm_sums_f64(double* parts, const float* x, const double* mean, uint32_t n, uint32_t c, uint32_t size) {
    Own own(n, c, size);
    double centre = mean && own.channel < c ? mean[own.channel] : 0.0, sum[1] = {};
    own.each([&](uint32_t i) {
        double d = x[i] - centre;
        sum[0] += mean ? d * d : d;
    });
    write_sums(parts, own, sum);
}
KERNEL(batch_norm_sums_f64);

// out [c] = (sums of parts [chunks, c] over chunks) / over.
extern "C" __global__ void __launch_bounds__(BATCH_NORM_THREADS)
batch_norm_fold_f64(double* out, const double* parts, uint32_t c, uint32_t chunks, double over) {
    uint32_t channel = warp(BATCH_NORM_THREADS);
    if (channel >= c) return;
    double sum = warp_sum(chunks, [&](uint32_t chunk) { return parts[uint64_t(chunk) * c + channel]; });
    if (lane() == 0) out[channel] = sum / over;
}
KERNEL(batch_norm_fold_f64);

// y = (x - mean) scale + beta, scale = gamma / sqrt(var + eps), each rounded to f32: the CPU's bits for the same
// moments.
extern "C" __global__ void __launch_bounds__(BATCH_NORM_THREADS)
batch_norm_f32(float* y, const float* x, const double* moments, const float* gamma, const float* beta, uint32_t n, uint32_t c, uint32_t size, float eps) {
    Own own(n, c, size);
    if (own.channel >= c) return;
    float mean = float(moments[own.channel]), shift = beta[own.channel];
    float scale = float(double(gamma[own.channel]) / sqrt(moments[c + own.channel] + double(eps)));
    own.each([&](uint32_t i) { y[i] = __fadd_rn(__fmul_rn(__fsub_rn(x[i], mean), scale), shift); });
}
KERNEL(batch_norm_f32);

// parts [chunks, 2, c] = the sums of dy, and of dy x^.
extern "C" __global__ void __launch_bounds__(BATCH_NORM_THREADS)
batch_norm_backward_sums_f64(double* parts, const float* dy, const float* x, const double* moments, uint32_t n, uint32_t c, uint32_t size, float eps) {
    Own own(n, c, size);
    double sum[2] = {};
    if (own.channel < c) {
        const Standard hat(moments, own, eps);
        own.each([&](uint32_t i) { sum[0] += dy[i], sum[1] += dy[i] * hat(x[i]); });
    }
    write_sums(parts, own, sum);
}
KERNEL(batch_norm_backward_sums_f64);

// dx += gamma / sigma (dy - mean(dy) - x^ mean(dy x^)), from the sums [2, c] of dy and of dy x^.
extern "C" __global__ void __launch_bounds__(BATCH_NORM_THREADS)
batch_norm_backward_f32(float* dx, const float* dy, const float* x, const double* moments, const double* sums, const float* gamma, uint32_t n, uint32_t c, uint32_t size, float eps) {
    Own own(n, c, size);
    if (own.channel >= c) return;
    const Standard hat(moments, own, eps);
    double scale = gamma[own.channel] * hat.r, mean = sums[own.channel] / n, along = sums[c + own.channel] / n;
    own.each([&](uint32_t i) { dx[i] += float(scale * (dy[i] - (mean + hat(x[i]) * along))); });
}
KERNEL(batch_norm_backward_f32);

// gradient += sums; [c].
extern "C" __global__ void __launch_bounds__(BATCH_NORM_THREADS)
batch_norm_gradient_f32(float* gradient, const double* sums, uint32_t c) {
    uint32_t channel = blockIdx.x * BATCH_NORM_THREADS + threadIdx.x;
    if (channel < c) gradient[channel] += float(sums[channel]);
}
KERNEL(batch_norm_gradient_f32);

// running += momentum (factor moment - running), with the CPU's bits; [c].
extern "C" __global__ void __launch_bounds__(BATCH_NORM_THREADS)
batch_norm_running_f32(float* running, const double* moment, uint32_t c, double factor, float momentum) {
    uint32_t channel = blockIdx.x * BATCH_NORM_THREADS + threadIdx.x;
    if (channel >= c) return;
    float now = running[channel], target = float(__dmul_rn(moment[channel], factor));
    running[channel] = __fadd_rn(now, __fmul_rn(momentum, __fsub_rn(target, now)));
}
KERNEL(batch_norm_running_f32);
