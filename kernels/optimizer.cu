/*
optimizer.cu: one step of an optimizer on one tensor, with the bits of src/ops/optimizer.rs: every operation is rounded
separately.

One thread handles one parameter. Values that change between steps are read from memory, so that one recorded launch
serves every step: `now` holds the factor on a sum of gradients, the rate, and Adam's corrections of its first and
second moment.
*/
#include "common/gpu.h"
#include "tiles.h"

// The gradient of the objective, with weight decay.
DEVICE float slope(const float* gradient, const float* w, const float* now, float decay, uint32_t i) {
    return __fadd_rn(__fmul_rn(gradient[i], now[0]), __fmul_rn(decay, w[i]));
}

// u = momentum u + g, w -= rate u.
extern "C" __global__ void __launch_bounds__(OPTIMIZER_THREADS)
sgd_f32(float* w, float* u, const float* gradient, const float* now, float momentum, float decay, uint32_t len) {
    uint32_t i = blockIdx.x * OPTIMIZER_THREADS + threadIdx.x;
    if (i >= len) return;
    u[i] = __fadd_rn(__fmul_rn(momentum, u[i]), slope(gradient, w, now, decay, i));
    w[i] = __fsub_rn(w[i], __fmul_rn(now[1], u[i]));
}
KERNEL(sgd_f32);

// Adam (Kingma & Ba 2015): w -= rate m^ / (sqrt(v^) + epsilon).
extern "C" __global__ void __launch_bounds__(OPTIMIZER_THREADS)
adam_f32(float* w, float* first, float* second, const float* gradient, const float* now, float beta1, float beta2, float epsilon, float decay, uint32_t len) {
    uint32_t i = blockIdx.x * OPTIMIZER_THREADS + threadIdx.x;
    if (i >= len) return;
    float g = slope(gradient, w, now, decay, i);
    first[i] = __fadd_rn(__fmul_rn(beta1, first[i]), __fmul_rn(__fsub_rn(1.0f, beta1), g));
    second[i] = __fadd_rn(__fmul_rn(beta2, second[i]), __fmul_rn(__fmul_rn(__fsub_rn(1.0f, beta2), g), g));
    float size = __fadd_rn(__fsqrt_rn(__fdiv_rn(second[i], now[3])), epsilon);
    w[i] = __fsub_rn(w[i], __fdiv_rn(__fmul_rn(now[1], __fdiv_rn(first[i], now[2])), size));
}
KERNEL(adam_f32);
