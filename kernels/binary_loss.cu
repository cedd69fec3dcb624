/*
binary_loss.cu: binary cross-entropy over L labels at the logits, the mean over labels (MATH.md, Eq. 5).

With s = -z where a label is 1 and s = z where it is 0, the loss of a label is ln(1 + e^s) as max(s, 0) + log1p(exp(-|s|)),
and gradient and curvature are made of exp(-|z|) too: no difference of numbers close to each other is taken. A label that is
neither 0 nor 1 gives NaN. Values and products with the Fisher matrix sum over labels: one warp owns one row, lane l has labels
l, l + 32, .., sums are in f64, over lanes in a butterfly. The others have a thread per label. Bound by the bytes read.
*/
#include "common/philox.h"
#include "common/warp.h"
#include "tiles.h"

// The logit of the label's opposite.
DEVICE double against(float z, uint32_t label) { return label == 0 ? double(z) : label == 1 ? -double(z) : double(NAN); }

// p (1 - p) with p = 1 / (1 + exp(-z)).
DEVICE double variance(float z) {
    double e = exp(-fabs(double(z)));
    return e / ((1.0 + e) * (1.0 + e));
}

// (p - y) / L, as it is stored.
DEVICE float slope(float z, uint32_t label, uint32_t count) {
    double s = against(z, label), e = exp(-fabs(s));
    double p = (s < 0.0 ? e / (1.0 + e) : 1.0 / (1.0 + e)) / count;  // of what the label is not
    return float(label == 1 ? -p : p);
}

extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
binary_cross_entropy_f32(float* losses, const float* logits, const uint32_t* labels, uint32_t n, uint32_t count) {
    uint32_t i = warp(LOSS_THREADS);
    if (i >= n) return;
    double sum = warp_sum(count, [&](uint32_t l) {
        double s = against(logits[i * count + l], labels[i * count + l]);
        return (s > 0.0 ? s : 0.0) + log1p(exp(-fabs(s)));
    });
    if (lane() == 0) losses[i] = float(sum / count);
}
KERNEL(binary_cross_entropy_f32);

// d = the gradient; len = n L.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
binary_cross_entropy_gradient_f32(float* d, const float* logits, const uint32_t* labels, uint32_t len, uint32_t count) {
    uint32_t at = blockIdx.x * LOSS_THREADS + threadIdx.x;
    if (at < len) d[at] = slope(logits[at], labels[at], count);
}
KERNEL(binary_cross_entropy_gradient_f32);

// back = p (1 - p) t / L.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
binary_cross_entropy_curvature_f32(float* back, const float* t, const float* logits, uint32_t len, uint32_t count) {
    uint32_t at = blockIdx.x * LOSS_THREADS + threadIdx.x;
    if (at < len) back[at] = float(variance(logits[at]) * t[at] / count);
}
KERNEL(binary_cross_entropy_curvature_f32);

// back = d (d . t), d the gradient.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
binary_cross_entropy_fisher_f32(float* back, const float* t, const float* logits, const uint32_t* labels, uint32_t n, uint32_t count) {
    uint32_t i = warp(LOSS_THREADS);
    if (i >= n) return;
    uint32_t row = i * count;
    auto d = [&](uint32_t l) { return double(slope(logits[row + l], labels[row + l], count)); };
    double along = warp_sum(count, [&](uint32_t l) { return d(l) * t[row + l]; });
    for (uint32_t l = lane(); l < count; l += 32) back[row + l] = float(d(l) * along);
}
KERNEL(binary_cross_entropy_fisher_f32);

// d [n, L] = sqrt(p (1 - p) / L) with a random sign, whose second moment is the curvature: the sign of label l is bit l mod 32
// of word l / 32 of (seed, first + row).
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
binary_draw_f32(float* d, const float* logits, uint32_t len, uint32_t count, uint64_t seed, uint32_t first) {
    uint32_t at = blockIdx.x * LOSS_THREADS + threadIdx.x;
    if (at >= len) return;
    uint32_t row = at / count, l = at % count;
    Words words = philox({{l / 128, 0, first + row, PHILOX_LABELS}}, uint32_t(seed), uint32_t(seed >> 32));
    double size = sqrt(variance(logits[at]) / count);
    d[at] = float(words.w[l / 32 % 4] >> l % 32 & 1 ? -size : size);
}
KERNEL(binary_draw_f32);

// Whether each logit is above 0.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
above_zero_u32(uint32_t* predicted, const float* logits, uint32_t len) {
    uint32_t at = blockIdx.x * LOSS_THREADS + threadIdx.x;
    if (at < len) predicted[at] = logits[at] > 0.0f;
}
KERNEL(above_zero_u32);
