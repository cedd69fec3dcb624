/*
pool.cu: pooling over NHWC images and its adjoints: the maximum of a window with the position of its first occurrence,
and the mean of a window, of a cell of a grid, or of a whole image.

One thread handles one output element; neighbours in a warp are neighbouring channels. Adjoints gather: a thread adds up
the adjoints of all windows that cover its element, in row-major order. All sums are f32, one rounding each, in
row-major order: the CPU's bits. Of values of 16 bits, the mean is rounded once more, and the maximum is exact.
*/
#include "common/element.h"
#include "tiles.h"

// Images and the windows over them.
struct Pooling {
    uint32_t n, h, w, c, oh, ow;                 // images [n, h, w, c] to [n, oh, ow, c]
    uint32_t rows, columns, stride, above, left; // of a window, and the padding before the image; rows 0: cells of a grid
    uint32_t counted_rows, counted_columns;      // what means count: the image with its padding; 0: the image alone
};

struct Range { uint32_t from, to; };

// Along one axis: the positions, out of `size`, that output o reads. Windows are clipped to the image. Window 0 means
// the cells of a grid: cell o of `cells` is from floor(o size / cells) to ceil((o + 1) size / cells).
DEVICE Range field(uint32_t o, uint32_t size, uint32_t cells, uint32_t window, uint32_t stride, uint32_t padding) {
    if (window == 0) return {o * size / cells, ((o + 1) * size + cells - 1) / cells};
    uint32_t start = o * stride, end = start + window;
    return {start > padding ? start - padding : 0, min(end > padding ? end - padding : 0, size)};
}

// Along one axis: the outputs that read position i.
DEVICE Range readers(uint32_t i, uint32_t size, uint32_t cells, uint32_t window, uint32_t stride, uint32_t padding) {
    if (window == 0) return {i * cells / size, ((i + 1) * cells + size - 1) / size};
    uint32_t at = i + padding;
    return {at < window ? 0 : (at - window) / stride + 1, min(at / stride + 1, cells)};
}

// Along one axis: how many positions output o takes the mean over.
DEVICE uint32_t counts(Range read, uint32_t o, uint32_t window, uint32_t stride, uint32_t counted) {
    return counted ? min(window, counted - o * stride) : read.to - read.from;
}

DEVICE Range rows_of(const Pooling& p, uint32_t o) { return field(o, p.h, p.oh, p.rows, p.stride, p.above); }
DEVICE Range columns_of(const Pooling& p, uint32_t o) { return field(o, p.w, p.ow, p.columns, p.stride, p.left); }

// The weight of one value in the mean at (row, column) of the output.
DEVICE float share(const Pooling& p, uint32_t row, uint32_t column) {
    uint32_t rows = counts(rows_of(p, row), row, p.rows, p.stride, p.counted_rows);
    uint32_t columns = counts(columns_of(p, column), column, p.columns, p.stride, p.counted_columns);
    return 1.0f / float(rows * columns);
}

// The element of [n, h, w, c] with this index.
struct At { uint32_t image, row, column, channel; };
DEVICE At locate(uint32_t i, uint32_t h, uint32_t w, uint32_t c) {
    uint32_t position = i / c, line = position / w;
    return {line / h, line % h, position % w, i % c};
}

template <class T> DEVICE void max_pool(T* y, uint32_t* winners, const T* x, const Pooling& p) {
    uint32_t i = blockIdx.x * POOL_THREADS + threadIdx.x;
    if (i >= p.n * p.oh * p.ow * p.c) return;
    At at = locate(i, p.oh, p.ow, p.c);
    Range rows = rows_of(p, at.row), columns = columns_of(p, at.column);
    const T* image = x + at.image * p.h * p.w * p.c + at.channel;
    uint32_t winner = rows.from * p.w + columns.from;
    float best = load(image + winner * p.c);
    for (uint32_t row = rows.from; row < rows.to; ++row)
        for (uint32_t column = columns.from; column < columns.to; ++column) {
            float value = load(image + (row * p.w + column) * p.c);
            if (value > best) best = value, winner = row * p.w + column;
        }
    store(y + i, best);
    if (winners) winners[i] = winner;
}
extern "C" __global__ void __launch_bounds__(POOL_THREADS)
max_pool_f32(float* y, uint32_t* winners, const float* x, const __grid_constant__ Pooling p) { max_pool(y, winners, x, p); }
KERNEL(max_pool_f32);
extern "C" __global__ void __launch_bounds__(POOL_THREADS)
max_pool_bf16(bf16* y, uint32_t* winners, const bf16* x, const __grid_constant__ Pooling p) { max_pool(y, winners, x, p); }
KERNEL(max_pool_bf16);
extern "C" __global__ void __launch_bounds__(POOL_THREADS)
max_pool_f16(f16* y, uint32_t* winners, const f16* x, const __grid_constant__ Pooling p) { max_pool(y, winners, x, p); }
KERNEL(max_pool_f16);

extern "C" __global__ void __launch_bounds__(POOL_THREADS)
max_pool_tangent_f32(float* t, const uint32_t* winners, const float* tx, uint32_t n, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow) {
    uint32_t i = blockIdx.x * POOL_THREADS + threadIdx.x, each = oh * ow * c;
    if (i < n * each) t[i] = tx[(i / each * h * w + min(winners[i], h * w - 1)) * c + i % c];
}
KERNEL(max_pool_tangent_f32);

extern "C" __global__ void __launch_bounds__(POOL_THREADS)
max_pool_backward_f32(float* dx, const uint32_t* winners, const float* dy, const __grid_constant__ Pooling p) {
    uint32_t i = blockIdx.x * POOL_THREADS + threadIdx.x;
    if (i >= p.n * p.h * p.w * p.c) return;
    At at = locate(i, p.h, p.w, p.c);
    Range rows = readers(at.row, p.h, p.oh, p.rows, p.stride, p.above);
    Range columns = readers(at.column, p.w, p.ow, p.columns, p.stride, p.left);
    float sum = dx[i];
    for (uint32_t row = rows.from; row < rows.to; ++row)
        for (uint32_t column = columns.from; column < columns.to; ++column) {
            uint32_t o = ((at.image * p.oh + row) * p.ow + column) * p.c + at.channel;
            if (winners[o] == at.row * p.w + at.column) sum = __fadd_rn(sum, dy[o]);
        }
    dx[i] = sum;
}
KERNEL(max_pool_backward_f32);

template <class T> DEVICE void mean_pool(T* y, const T* x, const Pooling& p) {
    uint32_t i = blockIdx.x * POOL_THREADS + threadIdx.x;
    if (i >= p.n * p.oh * p.ow * p.c) return;
    At at = locate(i, p.oh, p.ow, p.c);
    Range rows = rows_of(p, at.row), columns = columns_of(p, at.column);
    const T* image = x + at.image * p.h * p.w * p.c + at.channel;
    float weight = share(p, at.row, at.column), sum = 0.0f;
    for (uint32_t row = rows.from; row < rows.to; ++row)
        for (uint32_t column = columns.from; column < columns.to; ++column)
            sum = __fadd_rn(sum, __fmul_rn(load(image + (row * p.w + column) * p.c), weight));
    store(y + i, sum);
}
extern "C" __global__ void __launch_bounds__(POOL_THREADS)
mean_pool_f32(float* y, const float* x, const __grid_constant__ Pooling p) { mean_pool(y, x, p); }
KERNEL(mean_pool_f32);
extern "C" __global__ void __launch_bounds__(POOL_THREADS)
mean_pool_bf16(bf16* y, const bf16* x, const __grid_constant__ Pooling p) { mean_pool(y, x, p); }
KERNEL(mean_pool_bf16);
extern "C" __global__ void __launch_bounds__(POOL_THREADS)
mean_pool_f16(f16* y, const f16* x, const __grid_constant__ Pooling p) { mean_pool(y, x, p); }
KERNEL(mean_pool_f16);

extern "C" __global__ void __launch_bounds__(POOL_THREADS)
mean_pool_backward_f32(float* dx, const float* dy, const __grid_constant__ Pooling p) {
    uint32_t i = blockIdx.x * POOL_THREADS + threadIdx.x;
    if (i >= p.n * p.h * p.w * p.c) return;
    At at = locate(i, p.h, p.w, p.c);
    Range rows = readers(at.row, p.h, p.oh, p.rows, p.stride, p.above);
    Range columns = readers(at.column, p.w, p.ow, p.columns, p.stride, p.left);
    float sum = dx[i];
    for (uint32_t row = rows.from; row < rows.to; ++row)
        for (uint32_t column = columns.from; column < columns.to; ++column) {
            float dmean = dy[((at.image * p.oh + row) * p.ow + column) * p.c + at.channel];
            sum = __fadd_rn(sum, __fmul_rn(dmean, share(p, row, column)));
        }
    dx[i] = sum;
}
KERNEL(mean_pool_backward_f32);
