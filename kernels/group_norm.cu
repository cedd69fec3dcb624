/*
group_norm.cu: group norm, its tangent and both adjoints. The c channels of an image's positions form `groups` groups of
c / groups neighbours; over all values of a group, positions and channels, y = gamma x^ + beta, x^ = (x - mu) r,
r = 1/sqrt(var + eps), with gamma and beta of each channel. `saved` holds mu and r of each image and group. The derivatives
are layer norm's with means over the group (MATH.md, Eq. 8b).

A block owns one group of one image; thread l handles its values l, l + GROUP_NORM_THREADS, .., counted position by
position. Sums are in f64: a thread's own, lanes in a butterfly, warps in order. Shared memory holds a few sums a warp
(at most 384 bytes). The kernels are bound by memory: they read a group two or three times, from the second time on out
of the cache where it fits.

At gamma and beta, a thread owns a channel of a chunk of positions instead, and adds them in order; chunks are added by
chunks.cu.
*/
#include "common/block.h"
#include "tiles.h"

constexpr uint32_t WARPS = GROUP_NORM_THREADS / 32;

// The block's group: `width` channels from `channel` on, of the positions of one image; value 0 is at `first`.
struct Group {
    uint32_t c, width, channel, first, count;
    DEVICE Group(uint32_t positions, uint32_t c, uint32_t groups) : c(c), width(c / groups) {
        channel = blockIdx.x % groups * width;
        first = blockIdx.x / groups * positions * c + channel;
        count = positions * width;
    }
    // Calls f(index in x, channel) for each of this thread's values.
    template <class F> DEVICE void each(F f) const {
        constexpr uint32_t T = GROUP_NORM_THREADS;
        uint32_t i = threadIdx.x % width, at = first + threadIdx.x / width * c + i;
        const uint32_t on = T % width, stride = T / width * c + on;  // the way to the value T on, within a row of channels
        for (uint32_t value = threadIdx.x; value < count; value += T) {
            f(at, channel + i);
            at += stride, i += on;
            if (i >= width) at += c - width, i -= width;  // beyond the row's end
        }
    }
};

// mu and r as they were saved, and x^.
struct Standard {
    double mean, r;
    DEVICE Standard(const float* saved) : mean(saved[2 * blockIdx.x]), r(saved[2 * blockIdx.x + 1]) {}
    DEVICE double operator()(float x) const { return (double(x) - mean) * r; }
};

// mean = the means over the group of what f(sum, index, channel) adds to COUNT sums at each value.
template <uint32_t COUNT, class F> DEVICE void means(double (&mean)[COUNT], const Group& group, F f) {
    for (uint32_t i = 0; i < COUNT; ++i) mean[i] = 0.0;
    group.each([&](uint32_t at, uint32_t channel) { f(mean, at, channel); });
    block_sums<WARPS>(mean);
    for (uint32_t i = 0; i < COUNT; ++i) mean[i] /= group.count;
}

// y [n, positions, c], saved [n, groups, 2].
extern "C" __global__ void __launch_bounds__(GROUP_NORM_THREADS)
group_norm_f32(float* y, float* saved, const float* x, const float* gamma, const float* beta, uint32_t positions, uint32_t c, uint32_t groups, float eps) {
    Group group(positions, c, groups);
    double mu[1], var[1];
    means(mu, group, [&](double* sum, uint32_t at, uint32_t) { sum[0] += x[at]; });
    means(var, group, [&](double* sum, uint32_t at, uint32_t) { sum[0] += (x[at] - mu[0]) * (x[at] - mu[0]); });
    float pair[2] = {float(mu[0]), float(1.0 / sqrt(var[0] + double(eps)))};  // all threads take what is saved
    if (threadIdx.x < 2) saved[2 * blockIdx.x + threadIdx.x] = pair[threadIdx.x];
    group.each([&](uint32_t at, uint32_t i) {
        double hat = (double(x[at]) - pair[0]) * pair[1];
        y[at] = float(hat * gamma[i] + beta[i]);
    });
}
KERNEL(group_norm_f32);

// t = gamma x^', x^' = r (x' - mean x' - x^ q), q = mean x^ x'.
extern "C" __global__ void __launch_bounds__(GROUP_NORM_THREADS)
group_norm_tangent_f32(float* t, const float* tx, const float* x, const float* saved, const float* gamma, uint32_t positions, uint32_t c, uint32_t groups) {
    Group group(positions, c, groups);
    Standard hat(saved);
    double mean[2];
    means(mean, group, [&](double* sum, uint32_t at, uint32_t) { sum[0] += tx[at], sum[1] += hat(x[at]) * tx[at]; });
    double shift = mean[0], q = mean[1];
    group.each([&](uint32_t at, uint32_t i) { t[at] = float(gamma[i] * (hat.r * (tx[at] - shift - hat(x[at]) * q))); });
}
KERNEL(group_norm_tangent_f32);

// dx += r (u - mean u - x^ m), u = gamma dy, m = mean u x^.
extern "C" __global__ void __launch_bounds__(GROUP_NORM_THREADS)
group_norm_backward_f32(float* dx, const float* dy, const float* x, const float* saved, const float* gamma, uint32_t positions, uint32_t c, uint32_t groups) {
    Group group(positions, c, groups);
    Standard hat(saved);
    auto u = [&](uint32_t at, uint32_t i) { return double(gamma[i]) * dy[at]; };
    double mean[2];
    means(mean, group, [&](double* sum, uint32_t at, uint32_t i) { sum[0] += u(at, i), sum[1] += u(at, i) * hat(x[at]); });
    double shift = mean[0], m = mean[1];
    group.each([&](uint32_t at, uint32_t i) { dx[at] += float(hat.r * (u(at, i) - shift - hat(x[at]) * m)); });
}
KERNEL(group_norm_backward_f32);

// The derivative of that along x' and dy', with q = mean x^ x' (so r' = -r^2 q) and m' = mean(u' x^ + u x^'):
// dxt += r (u' - mean u' - x^' m - x^ m') - r q dx.
extern "C" __global__ void __launch_bounds__(GROUP_NORM_THREADS)
group_norm_tangent_backward_f32(float* dxt, const float* dyt, const float* dy, const float* tx, const float* x, const float* saved, const float* gamma, uint32_t positions, uint32_t c, uint32_t groups) {
    Group group(positions, c, groups);
    Standard hat(saved);
    auto u = [&](uint32_t at, uint32_t i) { return double(gamma[i]) * dy[at]; };
    auto ut = [&](uint32_t at, uint32_t i) { return double(gamma[i]) * dyt[at]; };
    double mean[5], mean_t[1];
    means(mean, group, [&](double* sum, uint32_t at, uint32_t i) {
        sum[0] += tx[at], sum[1] += hat(x[at]) * tx[at];
        sum[2] += u(at, i), sum[3] += u(at, i) * hat(x[at]);
        sum[4] += ut(at, i);
    });
    double shift_x = mean[0], q = mean[1], shift = mean[2], m = mean[3], shift_t = mean[4];
    auto moved = [&](uint32_t at) { return hat.r * (tx[at] - shift_x - hat(x[at]) * q); };  // x^'
    means(mean_t, group, [&](double* sum, uint32_t at, uint32_t i) { sum[0] += ut(at, i) * hat(x[at]) + u(at, i) * moved(at); });
    double m_t = mean_t[0];
    group.each([&](uint32_t at, uint32_t i) {
        double dx = hat.r * (u(at, i) - shift - hat(x[at]) * m);
        dxt[at] += float(hat.r * (ut(at, i) - shift_t - moved(at) * m - hat(x[at]) * m_t) - hat.r * q * dx);
    });
}
KERNEL(group_norm_tangent_backward_f32);

// parts [chunk of `size` of all n positions, c, 2]: over every chunk, dgamma = sum dy x^ and dbeta = sum dy; an image has
// `positions` of them.
extern "C" __global__ void __launch_bounds__(GROUP_NORM_THREADS)
group_norm_parameters_f32(float* parts, const float* dy, const float* x, const float* saved, uint32_t n, uint32_t positions, uint32_t c, uint32_t groups, uint32_t size) {
    uint32_t blocks = (c + GROUP_NORM_THREADS - 1) / GROUP_NORM_THREADS, chunk = blockIdx.x / blocks;
    uint32_t i = blockIdx.x % blocks * GROUP_NORM_THREADS + threadIdx.x;
    if (i >= c) return;
    double dgamma = 0.0, dbeta = 0.0;
    for (uint32_t at = chunk * size, end = min(n, at + size); at < end; ++at) {
        const float* pair = saved + 2 * (at / positions * groups + i / (c / groups));
        double d = dy[at * c + i];
        dgamma += d * ((double(x[at * c + i]) - pair[0]) * pair[1]), dbeta += d;
    }
    float* part = parts + (uint64_t(chunk) * c + i) * 2;
    part[0] = float(dgamma), part[1] = float(dbeta);
}
KERNEL(group_norm_parameters_f32);
