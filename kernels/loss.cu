/*
loss.cu: softmax cross-entropy at the logits, with label smoothing: value, gradient, and the two curvatures (MATH.md, Eq. 5).

Without smoothing the loss is log1p(sum over j != label of exp(z_j - z_label)), shifted by the largest logit where one
exceeds z_label, and the gradient at the label is minus the sum of the others': no difference of numbers close to each
other is taken. Smoothing e adds e times the mean of z_label - z_j to the loss and takes e / classes off every p_j; the
second derivative is the same. 0 changes no bit.
A label that is no class gives NaN. One warp owns one row; lane l handles classes l, l + 32, .. All sums are in f64, over lanes in a butterfly.
*/
#include "common/philox.h"
#include "common/warp.h"
#include "tiles.h"

// The probabilities of one row.
struct Softmax {
    const float* z;
    double top, scale;
    DEVICE Softmax(const float* z, uint32_t classes) : z(z), top(warp_max(z, classes)) {
        scale = 1.0 / warp_sum(classes, [&](uint32_t j) { return exp(z[j] - top); });
    }
    DEVICE double at(uint32_t j) const { return exp(z[j] - top) * scale; }
};

// One row's gradient, rounded as it is stored: p - (1 - smoothing) onehot(label) - smoothing / classes.
struct Gradient {
    Softmax p;
    uint32_t label;
    double share, others;
    DEVICE Gradient(const float* z, uint32_t label, uint32_t classes, double smoothing)
        : p(z, classes), label(label), share(smoothing / classes) {
        others = warp_sum(classes, [&](uint32_t j) { return j == label ? 0.0 : p.at(j) - share; });
    }
    DEVICE float at(uint32_t j) const { return float(j == label ? -others : p.at(j) - share); }
};

extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
cross_entropy_f32(float* losses, const float* logits, const uint32_t* labels, uint32_t n, uint32_t classes, double smoothing) {
    uint32_t i = warp(LOSS_THREADS);
    if (i >= n) return;
    const float* z = logits + i * classes;
    uint32_t label = labels[i];
    double at = label < classes ? z[label] : NAN, top = warp_max(z, classes), base = top <= at ? at : top;
    double others = warp_sum(classes, [&](uint32_t j) { return j == label ? 0.0 : exp(z[j] - base); });
    double loss = top <= at ? log1p(others) : (top - at) + log(others + exp(at - top));
    if (smoothing > 0.0) loss += smoothing * (warp_sum(classes, [&](uint32_t j) { return at - z[j]; }) / classes);
    if (lane() == 0) losses[i] = float(loss);
}
KERNEL(cross_entropy_f32);

// d = the gradient.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
cross_entropy_gradient_f32(float* d, const float* logits, const uint32_t* labels, uint32_t n, uint32_t classes, double smoothing) {
    uint32_t i = warp(LOSS_THREADS);
    if (i >= n) return;
    Gradient of(logits + i * classes, labels[i], classes, smoothing);
    for (uint32_t j = lane(); j < classes; j += 32) d[i * classes + j] = of.at(j);
}
KERNEL(cross_entropy_gradient_f32);

// d[i, j] *= weights[i].
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
weigh_f32(float* d, const float* weights, uint32_t n, uint32_t classes) {
    uint32_t at = blockIdx.x * LOSS_THREADS + threadIdx.x;
    if (at < n * classes) d[at] *= weights[at / classes];
}
KERNEL(weigh_f32);

// back = (diag(p) - p p^T) t.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
cross_entropy_curvature_f32(float* back, const float* t, const float* logits, uint32_t n, uint32_t classes) {
    uint32_t i = warp(LOSS_THREADS);
    if (i >= n) return;
    Softmax p(logits + i * classes, classes);
    t += i * classes;
    double mean = warp_sum(classes, [&](uint32_t j) { return p.at(j) * t[j]; });
    for (uint32_t j = lane(); j < classes; j += 32) back[i * classes + j] = float(p.at(j) * (t[j] - mean));
}
KERNEL(cross_entropy_curvature_f32);

// back = d (d . t), where d is the gradient.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
cross_entropy_fisher_f32(float* back, const float* t, const float* logits, const uint32_t* labels, uint32_t n, uint32_t classes, double smoothing) {
    uint32_t i = warp(LOSS_THREADS);
    if (i >= n) return;
    Gradient of(logits + i * classes, labels[i], classes, smoothing);
    t += i * classes;
    double along = warp_sum(classes, [&](uint32_t j) { return double(of.at(j)) * t[j]; });
    for (uint32_t j = lane(); j < classes; j += 32) back[i * classes + j] = float(double(of.at(j)) * along);
}
KERNEL(cross_entropy_fisher_f32);

// The largest logit of each row; the first of equal ones.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
largest_u32(uint32_t* predicted, const float* logits, uint32_t n, uint32_t classes) {
    uint32_t i = warp(LOSS_THREADS);
    if (i >= n) return;
    const float* z = logits + i * classes;
    uint32_t best = lane() < classes ? lane() : 0;
    for (uint32_t j = best; j < classes; j += 32)
        if (z[j] > z[best]) best = j;
    for (int offset = 16; offset; offset /= 2) {
        uint32_t other = __shfl_xor_sync(~0u, best, offset);
        if (z[other] > z[best] || (z[other] == z[best] && other < best)) best = other;
    }
    if (lane() == 0) predicted[i] = best;
}
KERNEL(largest_u32);

// d [n, classes] = for each row a draw whose second moment is the curvature, as in ops::loss (MATH.md, Eq. 11b). Let
// O_c be the sum of the p_j of the other classes, S_c = O_c^2 + the sum of their squares, and T = sum of p_c S_c. A
// class c is drawn with probability p_c S_c / T, and d = sqrt(T / S_c) (p - e_c). Row i uses the first word of (seed,
// first + i). Every lane visits all classes in order.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
draw_curvature_f32(float* d, const float* logits, uint32_t n, uint32_t classes, uint64_t seed, uint32_t first) {
    uint32_t i = warp(LOSS_THREADS);
    if (i >= n) return;
    const float* z = logits + i * classes;
    Softmax p(z, classes);
    uint32_t top = 0;
    for (uint32_t c = 1; c < classes; ++c)
        if (z[c] > z[top]) top = c;
    double most = p.at(top), rest = warp_sum(classes, [&](uint32_t j) { return j == top ? 0.0 : p.at(j); });
    double squares = warp_sum(classes, [&](uint32_t j) { return j == top ? 0.0 : p.at(j) * p.at(j); });
    // For all classes but the largest, p is at most 1/2, so no digits are lost.
    auto others = [&](uint32_t c) { return c == top ? rest : 1.0 - p.at(c); };
    auto square = [&](uint32_t c) {
        double own = others(c);
        return own * own + (c == top ? squares : squares - p.at(c) * p.at(c) + most * most);
    };
    double trace = 0.0;
    for (uint32_t c = 0; c < classes; ++c) trace += p.at(c) * square(c);
    Words word = philox({{0, 0, first + i, PHILOX_LABELS}}, uint32_t(seed), uint32_t(seed >> 32));
    double left = double((uint64_t(word.w[0]) << 32 | word.w[1]) >> 11) * 0x1p-53 * trace;
    uint32_t drawn = top;  // the result where rounding leaves a remainder, or there is no curvature
    for (uint32_t c = 0; c < classes; ++c) {
        left -= p.at(c) * square(c);
        if (left < 0.0) {
            drawn = c;
            break;
        }
    }
    double weight = square(drawn) > 0.0 ? sqrt(trace / square(drawn)) : 0.0;
    for (uint32_t j = lane(); j < classes; j += 32)
        d[i * classes + j] = float(j == drawn ? -weight * others(drawn) : weight * p.at(j));
}
KERNEL(draw_curvature_f32);

// scores = the sum of the losses, and how many rows of predictions [n, width] are right in every word; one warp.
extern "C" __global__ void __launch_bounds__(LOSS_THREADS)
score_f64(double* scores, const float* losses, const uint32_t* predicted, const uint32_t* labels, uint32_t n, uint32_t width) {
    if (warp(LOSS_THREADS) > 0) return;
    double loss = warp_sum(n, [&](uint32_t i) { return double(losses[i]); });
    double right = warp_sum(n, [&](uint32_t i) {
        bool all = true;
        for (uint32_t j = i * width; j < (i + 1) * width; ++j) all = all && predicted[j] == labels[j];
        return all ? 1.0 : 0.0;
    });
    if (lane() == 0) scores[0] = loss, scores[1] = right;
}
KERNEL(score_f64);
