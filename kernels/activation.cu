/*
activation.cu: pointwise nonlinearities f with f' and f'' (MATH.md, Eq. 7); GELU by erf.

One thread computes one element, in f64 from f32 to f32, as on the CPU; f itself also of values of 16 bits, with one more
rounding. For ReLU, f' can be computed from f(a) instead of a. An output may alias an input, because each element is read
before the same thread writes it.
*/
#include "common/element.h"
#include "tiles.h"

// The kinds, with the numbers of `Activation` in src/ops/geometry.rs.
constexpr uint32_t RELU = 0, GELU = 1, SILU = 2, SIGMOID = 3, TANH = 4, SOFTPLUS = 5, HARD_SWISH = 6, HARD_SIGMOID = 7,
                   RELU6 = 8, QUICK_GELU = 9, GELU_TANH = 10;

// erf(x)/x as a rational function of x^2 on [0, 4], relative error 2.1e-9. Beyond, erf is 1 to half an ulp of f32.
DEVICE double erf_f64(double x) {
    const double p[7] = {1.1283791693636172, 0.18520377267205002, 0.05431691018380203, 0.003849624969206099,
                         0.00037960608400775355, 4.684688261290758e-6, -1.3201804734619127e-8};
    const double q[6] = {1.0, 0.4974659837376452, 0.11395857828421137, 0.015462106007082033, 0.001307568960318577,
                         6.310974269586632e-5};
    x = x < -4.0 ? -4.0 : x > 4.0 ? 4.0 : x;
    double u = x * x, above = p[6], below = q[5];
    for (int i = 5; i >= 0; --i) above = above * u + p[i];
    for (int i = 4; i >= 0; --i) below = below * u + q[i];
    return x * above / below;
}
DEVICE double normal_below(double a) { return 0.5 * (1.0 + erf_f64(a * 0.70710678118654752440)); }
DEVICE double normal_density(double a) { return 0.3989422804014327 * exp(-0.5 * a * a); }
DEVICE double sigmoid(double a) { return 1.0 / (1.0 + exp(-a)); }

// Whether a is strictly between: at a kink and beyond it the derivative is the outer one.
DEVICE bool between(double a, double low, double high) { return low < a && a < high; }
// clamp(a, 0, 6).
DEVICE double clamp6(double a) { return a <= 0.0 ? 0.0 : a >= 6.0 ? 6.0 : a; }

constexpr double QUICK = 1.702;

// The tanh form of GELU is a (1 + t) / 2, t = tanh u: t, u' and u''.
struct Cubic {
    double t, u1, u2;
    DEVICE Cubic(double a) {
        constexpr double SCALE = 0.7978845608028654, CUBE = 0.044715;  // sqrt(2 / pi)
        t = tanh(SCALE * a * (1.0 + CUBE * a * a));
        u1 = SCALE * (1.0 + 3.0 * CUBE * a * a), u2 = SCALE * 6.0 * CUBE * a;
    }
};

DEVICE double value(uint32_t kind, double a) {
    switch (kind) {
    case RELU: return a > 0.0 ? a : 0.0;
    case GELU: return a * normal_below(a);
    case SILU: return a * sigmoid(a);
    case SIGMOID: return sigmoid(a);
    case TANH: return tanh(a);
    case SOFTPLUS: return (a > 0.0 ? a : 0.0) + log1p(exp(-fabs(a)));
    case HARD_SWISH: return a * clamp6(a + 3.0) / 6.0;
    case HARD_SIGMOID: return clamp6(a + 3.0) / 6.0;
    case RELU6: return clamp6(a);
    case QUICK_GELU: return a * sigmoid(QUICK * a);
    case GELU_TANH: return 0.5 * a * (1.0 + Cubic(a).t);
    default: return NAN;
    }
}

DEVICE double slope(uint32_t kind, double a) {
    switch (kind) {
    case RELU: return a > 0.0 ? 1.0 : 0.0;
    case GELU: return normal_below(a) + a * normal_density(a);
    case SILU: {
        double s = sigmoid(a);
        return s * (1.0 + a * (1.0 - s));
    }
    case SIGMOID: {
        double s = sigmoid(a);
        return s * (1.0 - s);
    }
    case TANH: {
        double t = tanh(a);
        return 1.0 - t * t;
    }
    case SOFTPLUS: return sigmoid(a);
    case HARD_SWISH: return between(a, -3.0, 3.0) ? a / 3.0 + 0.5 : a >= 3.0 ? 1.0 : 0.0;
    case HARD_SIGMOID: return between(a, -3.0, 3.0) ? 1.0 / 6.0 : 0.0;
    case RELU6: return between(a, 0.0, 6.0) ? 1.0 : 0.0;
    case QUICK_GELU: {
        double s = sigmoid(QUICK * a);
        return s * (1.0 + QUICK * a * (1.0 - s));
    }
    case GELU_TANH: {
        Cubic c(a);
        return 0.5 * (1.0 + c.t) + 0.5 * a * (1.0 - c.t * c.t) * c.u1;
    }
    default: return NAN;
    }
}

DEVICE double curve(uint32_t kind, double a) {
    switch (kind) {
    case RELU: return 0.0;
    case GELU: return normal_density(a) * (2.0 - a * a);
    case SILU: {
        double s = sigmoid(a);
        return s * (1.0 - s) * (2.0 + a * (1.0 - 2.0 * s));
    }
    case SIGMOID: {
        double s = sigmoid(a);
        return s * (1.0 - s) * (1.0 - 2.0 * s);
    }
    case TANH: {
        double t = tanh(a);
        return -2.0 * t * (1.0 - t * t);
    }
    case SOFTPLUS: {
        double s = sigmoid(a);
        return s * (1.0 - s);
    }
    case HARD_SWISH: return between(a, -3.0, 3.0) ? 1.0 / 3.0 : 0.0;
    case HARD_SIGMOID:
    case RELU6: return 0.0;
    case QUICK_GELU: {
        double s = sigmoid(QUICK * a);
        return QUICK * s * (1.0 - s) * (2.0 + QUICK * a * (1.0 - 2.0 * s));
    }
    case GELU_TANH: {
        Cubic c(a);
        return (1.0 - c.t * c.t) * (c.u1 + a * (0.5 * c.u2 - c.t * c.u1 * c.u1));
    }
    default: return NAN;
    }
}

// y = f(x).
template <class T> DEVICE void activation(T* y, const T* x, uint32_t kind, uint32_t len) {
    uint32_t i = blockIdx.x * ACTIVATION_THREADS + threadIdx.x;
    if (i >= len) return;
    float a = load(x + i);
    store(y + i, kind == RELU ? (a > 0.0f ? a : 0.0f) : float(value(kind, a)));
}
extern "C" __global__ void __launch_bounds__(ACTIVATION_THREADS)
activation_f32(float* y, const float* x, uint32_t kind, uint32_t len) { activation(y, x, kind, len); }
KERNEL(activation_f32);
extern "C" __global__ void __launch_bounds__(ACTIVATION_THREADS)
activation_bf16(bf16* y, const bf16* x, uint32_t kind, uint32_t len) { activation(y, x, kind, len); }
KERNEL(activation_bf16);
extern "C" __global__ void __launch_bounds__(ACTIVATION_THREADS)
activation_f16(f16* y, const f16* x, uint32_t kind, uint32_t len) { activation(y, x, kind, len); }
KERNEL(activation_f16);

// dx = f'(a) dy, or dx += f'(a) dy.
extern "C" __global__ void __launch_bounds__(ACTIVATION_THREADS)
activation_backward_f32(float* dx, const float* dy, const float* a, uint32_t kind, uint32_t len, uint32_t add) {
    uint32_t i = blockIdx.x * ACTIVATION_THREADS + threadIdx.x;
    if (i >= len) return;
    float d = dy[i];
    d = kind == RELU ? (a[i] > 0.0f ? d : 0.0f) : float(d * slope(kind, a[i]));
    dx[i] = add ? dx[i] + d : d;
}
KERNEL(activation_backward_f32);

// dxt = f'(a) dyt + f''(a) a' dy, or dxt += this.
extern "C" __global__ void __launch_bounds__(ACTIVATION_THREADS)
activation_tangent_backward_f32(float* dxt, const float* dyt, const float* dy, const float* at, const float* a, uint32_t kind, uint32_t len, uint32_t add) {
    uint32_t i = blockIdx.x * ACTIVATION_THREADS + threadIdx.x;
    if (i >= len) return;
    float d = kind == RELU ? (a[i] > 0.0f ? dyt[i] : 0.0f)
                           : float(slope(kind, a[i]) * dyt[i] + curve(kind, a[i]) * at[i] * dy[i]);
    dxt[i] = add ? dxt[i] + d : d;
}
KERNEL(activation_tangent_backward_f32);
