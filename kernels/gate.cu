/*
gate.cu: the product of a map with a gate that has one value per image and channel: y[n, p, c] = x[n, p, c] g[n, c]
(MATH.md, Eq. 8c). With one position an image it is the product of two maps of equal shape, element by element.

The product is bilinear, so that two kernels make all four passes (x' is the derivative of x along a direction, dy an
adjoint):

    forward             y    = x g
    tangent             y'   = x' g + x g'
    backward            dx  += dy g                 dg  += sum over positions of dy x
    tangent backward    dx' += dy' g + dy g'        dg' += sum over positions of dy' x + dy x'

gate makes a product: one thread owns one element, f32 without contraction, the CPU's bits. gate_gradient_f32 makes a
sum: a block owns 32 channels of one image; lane l has channel l, and warp w positions w, w + WARPS, ..; sums are in f64, a
thread's own positions in order, then the warps in order (2 KiB of shared memory). Both are bound by memory.
*/
#include "common/block.h"
#include "common/element.h"
#include "tiles.h"

constexpr uint32_t WARPS = GATE_THREADS / 32;

// y = x g, or y += that; y and x [n, positions, c], gate [n, c], len = n positions c.
template <class T>
DEVICE void product(T* y, const T* x, const T* gate, uint32_t len, uint32_t positions, uint32_t c, uint32_t add) {
    uint32_t i = blockIdx.x * GATE_THREADS + threadIdx.x;
    if (i >= len) return;
    float value = __fmul_rn(load(x + i), load(gate + i / (positions * c) * c + i % c));
    store(y + i, add ? __fadd_rn(load(y + i), value) : value);
}
extern "C" __global__ void __launch_bounds__(GATE_THREADS)
gate_f32(float* y, const float* x, const float* gate, uint32_t len, uint32_t positions, uint32_t c, uint32_t add) { product(y, x, gate, len, positions, c, add); }
KERNEL(gate_f32);
extern "C" __global__ void __launch_bounds__(GATE_THREADS)
gate_bf16(bf16* y, const bf16* x, const bf16* gate, uint32_t len, uint32_t positions, uint32_t c, uint32_t add) { product(y, x, gate, len, positions, c, add); }
KERNEL(gate_bf16);
extern "C" __global__ void __launch_bounds__(GATE_THREADS)
gate_f16(f16* y, const f16* x, const f16* gate, uint32_t len, uint32_t positions, uint32_t c, uint32_t add) { product(y, x, gate, len, positions, c, add); }
KERNEL(gate_f16);

// dgate [n, c] += the sum over positions of dy x, both [n, positions, c].
extern "C" __global__ void __launch_bounds__(GATE_THREADS)
gate_gradient_f32(float* dgate, const float* dy, const float* x, uint32_t positions, uint32_t c) {
    uint32_t blocks = (c + 31) / 32, image = blockIdx.x / blocks, channel = blockIdx.x % blocks * 32 + lane();
    double sum = 0.0;
    if (channel < c)
        for (uint32_t p = threadIdx.x / 32; p < positions; p += WARPS) {
            uint32_t i = (image * positions + p) * c + channel;
            sum += double(dy[i]) * x[i];
        }
    sum = sum_over_warps<WARPS>(sum);
    if (threadIdx.x < 32 && channel < c) dgate[image * c + channel] += float(sum);
}
KERNEL(gate_gradient_f32);
