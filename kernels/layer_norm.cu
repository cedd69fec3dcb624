/*
layer_norm.cu: y = gamma x^ + beta, x^ = (x - mu) r, r = 1/sqrt(var + eps), over the channels of each position; its
tangent and both adjoints (MATH.md, Eq. 8). `saved` holds mu and r of each position.

x is f32, and y may be of 16 bits: rounded once, when it is written. One warp handles one position: lane l has channels l,
l + 32, .. Moments are f64, summed over lanes by a butterfly. For
the gradients at gamma and beta, one thread handles one channel over a chunk of positions.
*/
#include "common/element.h"
#include "common/warp.h"
#include "tiles.h"

// One position: its channels, and x^.
struct Position {
    const float* x;
    double mean, r;
    DEVICE double hat(uint32_t i) const { return (double(x[i]) - mean) * r; }
};

// The mean of f over channels.
template <class F> DEVICE double mean(uint32_t c, F f) { return warp_sum(c, f) / c; }

// y [n, c], saved [n, 2].
template <class T>
DEVICE void layer_norm(T* y, float* saved, const float* x, const float* gamma, const float* beta, uint32_t n, uint32_t c, float eps) {
    uint32_t at = warp(LAYER_NORM_THREADS);
    if (at >= n) return;
    x += at * c, y += at * c;
    double mu = mean(c, [&](uint32_t i) { return double(x[i]); });
    double var = mean(c, [&](uint32_t i) { return (x[i] - mu) * (x[i] - mu); });
    float mean_f32 = float(mu), r = float(1.0 / sqrt(var + double(eps)));
    if (lane() == 0) saved[2 * at] = mean_f32, saved[2 * at + 1] = r;
    Position p = {x, mean_f32, r};
    for (uint32_t i = lane(); i < c; i += 32) store(y + i, float(p.hat(i) * gamma[i] + beta[i]));
}
extern "C" __global__ void __launch_bounds__(LAYER_NORM_THREADS)
layer_norm_f32(float* y, float* saved, const float* x, const float* gamma, const float* beta, uint32_t n, uint32_t c, float eps) { layer_norm(y, saved, x, gamma, beta, n, c, eps); }
KERNEL(layer_norm_f32);
extern "C" __global__ void __launch_bounds__(LAYER_NORM_THREADS)
layer_norm_bf16(bf16* y, float* saved, const float* x, const float* gamma, const float* beta, uint32_t n, uint32_t c, float eps) { layer_norm(y, saved, x, gamma, beta, n, c, eps); }
KERNEL(layer_norm_bf16);
extern "C" __global__ void __launch_bounds__(LAYER_NORM_THREADS)
layer_norm_f16(f16* y, float* saved, const float* x, const float* gamma, const float* beta, uint32_t n, uint32_t c, float eps) { layer_norm(y, saved, x, gamma, beta, n, c, eps); }
KERNEL(layer_norm_f16);

// t = gamma x^', x^' = r (x' - mean x' - x^ q), q = mean x^ x'.
extern "C" __global__ void __launch_bounds__(LAYER_NORM_THREADS)
layer_norm_tangent_f32(float* t, const float* tx, const float* x, const float* saved, const float* gamma, uint32_t n, uint32_t c) {
    uint32_t at = warp(LAYER_NORM_THREADS);
    if (at >= n) return;
    t += at * c, tx += at * c;
    Position p = {x + at * c, saved[2 * at], saved[2 * at + 1]};
    double shift = mean(c, [&](uint32_t i) { return double(tx[i]); });
    double q = mean(c, [&](uint32_t i) { return p.hat(i) * tx[i]; });
    for (uint32_t i = lane(); i < c; i += 32) t[i] = float(gamma[i] * (p.r * (tx[i] - shift - p.hat(i) * q)));
}
KERNEL(layer_norm_tangent_f32);

// dx += r (u - mean u - x^ m), u = gamma dy, m = mean u x^.
extern "C" __global__ void __launch_bounds__(LAYER_NORM_THREADS)
layer_norm_backward_f32(float* dx, const float* dy, const float* x, const float* saved, const float* gamma, uint32_t n, uint32_t c) {
    uint32_t at = warp(LAYER_NORM_THREADS);
    if (at >= n) return;
    dx += at * c, dy += at * c;
    Position p = {x + at * c, saved[2 * at], saved[2 * at + 1]};
    auto u = [&](uint32_t i) { return double(gamma[i]) * dy[i]; };
    double shift = mean(c, u), m = mean(c, [&](uint32_t i) { return u(i) * p.hat(i); });
    for (uint32_t i = lane(); i < c; i += 32) dx[i] += float(p.r * (u(i) - shift - p.hat(i) * m));
}
KERNEL(layer_norm_backward_f32);

// The derivative of dx along x' and dy', with q = mean x^ x' (so r' = -r^2 q) and m' = mean(u' x^ + u x^'):
// dxt += r (u' - mean u' - x^' m - x^ m') - r q dx.
extern "C" __global__ void __launch_bounds__(LAYER_NORM_THREADS)
layer_norm_tangent_backward_f32(float* dxt, const float* dyt, const float* dy, const float* tx, const float* x, const float* saved, const float* gamma, uint32_t n, uint32_t c) {
    uint32_t at = warp(LAYER_NORM_THREADS);
    if (at >= n) return;
    dxt += at * c, dyt += at * c, dy += at * c, tx += at * c;
    Position p = {x + at * c, saved[2 * at], saved[2 * at + 1]};
    auto u = [&](uint32_t i) { return double(gamma[i]) * dy[i]; };
    auto ut = [&](uint32_t i) { return double(gamma[i]) * dyt[i]; };
    double shift_x = mean(c, [&](uint32_t i) { return double(tx[i]); });
    double q = mean(c, [&](uint32_t i) { return p.hat(i) * tx[i]; });
    auto moved = [&](uint32_t i) { return p.r * (tx[i] - shift_x - p.hat(i) * q); };  // x^'
    double shift = mean(c, u), m = mean(c, [&](uint32_t i) { return u(i) * p.hat(i); });
    double shift_t = mean(c, ut), m_t = mean(c, [&](uint32_t i) { return ut(i) * p.hat(i) + u(i) * moved(i); });
    for (uint32_t i = lane(); i < c; i += 32) {
        double dx = p.r * (u(i) - shift - p.hat(i) * m);
        dxt[i] += float(p.r * (ut(i) - shift_t - moved(i) * m - p.hat(i) * m_t) - p.r * q * dx);
    }
}
KERNEL(layer_norm_tangent_backward_f32);

// parts [chunk of `size` positions, c, 2] = for each chunk, dgamma = sum dy x^ and dbeta = sum dy.
extern "C" __global__ void __launch_bounds__(LAYER_NORM_THREADS)
layer_norm_parameters_f32(float* parts, const float* dy, const float* x, const float* saved, uint32_t n, uint32_t c, uint32_t size) {
    uint32_t wide = (c + LAYER_NORM_THREADS - 1) / LAYER_NORM_THREADS, chunk = blockIdx.x / wide;
    uint32_t i = blockIdx.x % wide * LAYER_NORM_THREADS + threadIdx.x;
    if (i >= c) return;
    double dgamma = 0.0, dbeta = 0.0;
    for (uint32_t at = chunk * size, end = min(n, at + size); at < end; ++at) {
        const Position p = {x + at * c, saved[2 * at], saved[2 * at + 1]};
        double d = dy[at * c + i];
        dgamma += d * p.hat(i), dbeta += d;
    }
    float* part = parts + (uint64_t(chunk) * c + i) * 2;
    part[0] = float(dgamma), part[1] = float(dbeta);
}
KERNEL(layer_norm_parameters_f32);
