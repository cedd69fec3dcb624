/*
vector.cu: the vectors of a solver, in f64: sums of two vectors, dot products, and the conversion between a vector of
the block and the f32 rows of a layer.

Sums go over chunks whose size depends on the length alone. A thread adds up every VECTOR_THREADS-th product of its
block's chunk, and the threads of a block are added up by halving. There is no contraction, so a GPU gives the
emulator's bits.
*/
#include "common/gpu.h"
#include "tiles.h"

// y = (b y + a x) / over; y is not read where b is 0, nor x where a is 0. All [len].
extern "C" __global__ void __launch_bounds__(VECTOR_THREADS)
combine_f64(double* y, const double* x, double a, double b, double over, uint32_t len) {
    uint32_t i = blockIdx.x * VECTOR_THREADS + threadIdx.x;
    if (i >= len) return;
    double kept = b == 0.0 ? 0.0 : __dmul_rn(b, y[i]), added = a == 0.0 ? 0.0 : __dmul_rn(a, x[i]);
    y[i] = (a == 0.0 ? kept : b == 0.0 ? added : __dadd_rn(kept, added)) / over;
}
KERNEL(combine_f64);

// out[block] = the values of the block's chunk, combined by `join`.
template <class Value, class Join>
DEVICE void join_chunk(double* out, uint32_t len, uint32_t chunk, Value value, Join join) {
    struct Parts { double of[VECTOR_THREADS]; };
    SHARED(Parts, parts);
    uint32_t first = blockIdx.x * chunk, end = len - first < chunk ? len : first + chunk;
    double all = 0.0;
    for (uint32_t i = first + threadIdx.x; i < end; i += VECTOR_THREADS) all = join(all, value(i));
    parts.of[threadIdx.x] = all;
    __syncthreads();
    for (uint32_t half = VECTOR_THREADS / 2; half; half /= 2) {
        if (threadIdx.x < half) parts.of[threadIdx.x] = join(parts.of[threadIdx.x], parts.of[threadIdx.x + half]);
        __syncthreads();
    }
    if (threadIdx.x == 0) out[blockIdx.x] = parts.of[0];
}

// out[k] = sum of x y over chunk k, or of x where y is null; x and y [len].
extern "C" __global__ void __launch_bounds__(VECTOR_THREADS)
dot_f64(double* out, const double* x, const double* y, uint32_t len, uint32_t chunk) {
    auto product = [=](uint32_t i) { return y ? __dmul_rn(x[i], y[i]) : x[i]; };
    join_chunk(out, len, chunk, product, [](double a, double b) { return __dadd_rn(a, b); });
}
KERNEL(dot_f64);

// out[k] = the largest |x| of chunk k; x [len].
extern "C" __global__ void __launch_bounds__(VECTOR_THREADS)
largest_f64(double* out, const double* x, uint32_t len, uint32_t chunk) {
    auto size = [=](uint32_t i) { return x[i] < 0.0 ? -x[i] : x[i]; };
    join_chunk(out, len, chunk, size, [](double a, double b) { return a < b ? b : a; });
}
KERNEL(largest_f64);

// out[k] = the sum of x^2 over chunk k, in f64; x [len].
extern "C" __global__ void __launch_bounds__(VECTOR_THREADS)
squares_f32(double* out, const float* x, uint32_t len, uint32_t chunk) {
    auto square = [=](uint32_t i) { return __dmul_rn(x[i], x[i]); };
    join_chunk(out, len, chunk, square, [](double a, double b) { return __dadd_rn(a, b); });
}
KERNEL(squares_f32);

// weight [count, depth] and bias [count] (or null) = v / scale; in v, row r starts at starts[r] and ends with its bias.
extern "C" __global__ void __launch_bounds__(VECTOR_THREADS)
to_rows_f32(float* weight, float* bias, const double* v, const uint32_t* starts, uint32_t count, uint32_t depth, double scale) {
    uint32_t i = blockIdx.x * VECTOR_THREADS + threadIdx.x, row = i / (depth + 1), column = i % (depth + 1);
    if (row >= count || (column == depth && !bias)) return;
    float* to = column < depth ? weight + row * depth + column : bias + row;
    *to = float(v[starts[row] + column] / scale);
}
KERNEL(to_rows_f32);

// The reverse: v = row / n * scale.
extern "C" __global__ void __launch_bounds__(VECTOR_THREADS)
from_rows_f64(double* v, const float* weight, const float* bias, const uint32_t* starts, uint32_t count, uint32_t depth, double n, double scale) {
    uint32_t i = blockIdx.x * VECTOR_THREADS + threadIdx.x, row = i / (depth + 1), column = i % (depth + 1);
    if (row >= count || (column == depth && !bias)) return;
    double value = column < depth ? weight[row * depth + column] : bias[row];
    v[starts[row] + column] = value / n * scale;
}
KERNEL(from_rows_f64);
