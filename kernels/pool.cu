/*
pool.cu: pooling over NHWC images and its adjoints: the maximum of a window with the position of its first occurrence,
and the mean of a window, of a cell of a grid, or of a whole image.

One thread handles one output element; neighbours in a warp are neighbouring channels. Adjoints gather: a thread adds up
the adjoints of all windows that cover its element, in row-major order. All sums are f32, one rounding each, in
row-major order: the CPU's bits.
*/
#include "common/gpu.h"
#include "tiles.h"

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

// The weight of one value in the mean.
DEVICE float share(Range rows, Range columns, uint32_t window) {
    uint32_t count = window ? window * window : (rows.to - rows.from) * (columns.to - columns.from);
    return 1.0f / float(count);
}

// The element of [n, h, w, c] with this index.
struct At { uint32_t image, row, column, channel; };
DEVICE At locate(uint32_t i, uint32_t h, uint32_t w, uint32_t c) {
    uint32_t position = i / c, line = position / w;
    return {line / h, line % h, position % w, i % c};
}

extern "C" __global__ void __launch_bounds__(POOL_THREADS)
max_pool_f32(float* y, uint32_t* winners, const float* x, uint32_t n, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow, uint32_t window, uint32_t stride, uint32_t padding) {
    uint32_t i = blockIdx.x * POOL_THREADS + threadIdx.x;
    if (i >= n * oh * ow * c) return;
    At at = locate(i, oh, ow, c);
    Range rows = field(at.row, h, oh, window, stride, padding), columns = field(at.column, w, ow, window, stride, padding);
    const float* image = x + at.image * h * w * c + at.channel;
    uint32_t winner = rows.from * w + columns.from;
    float best = image[winner * c];
    for (uint32_t row = rows.from; row < rows.to; ++row)
        for (uint32_t column = columns.from; column < columns.to; ++column) {
            float value = image[(row * w + column) * c];
            if (value > best) best = value, winner = row * w + column;
        }
    y[i] = best, winners[i] = winner;
}
KERNEL(max_pool_f32);

extern "C" __global__ void __launch_bounds__(POOL_THREADS)
max_pool_tangent_f32(float* t, const uint32_t* winners, const float* tx, uint32_t n, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow) {
    uint32_t i = blockIdx.x * POOL_THREADS + threadIdx.x, each = oh * ow * c;
    if (i < n * each) t[i] = tx[(i / each * h * w + min(winners[i], h * w - 1)) * c + i % c];
}
KERNEL(max_pool_tangent_f32);

extern "C" __global__ void __launch_bounds__(POOL_THREADS)
max_pool_backward_f32(float* dx, const uint32_t* winners, const float* dy, uint32_t n, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow, uint32_t window, uint32_t stride, uint32_t padding) {
    uint32_t i = blockIdx.x * POOL_THREADS + threadIdx.x;
    if (i >= n * h * w * c) return;
    At at = locate(i, h, w, c);
    Range rows = readers(at.row, h, oh, window, stride, padding), columns = readers(at.column, w, ow, window, stride, padding);
    float sum = dx[i];
    for (uint32_t row = rows.from; row < rows.to; ++row)
        for (uint32_t column = columns.from; column < columns.to; ++column) {
            uint32_t o = ((at.image * oh + row) * ow + column) * c + at.channel;
            if (winners[o] == at.row * w + at.column) sum = __fadd_rn(sum, dy[o]);
        }
    dx[i] = sum;
}
KERNEL(max_pool_backward_f32);

extern "C" __global__ void __launch_bounds__(POOL_THREADS)
mean_pool_f32(float* y, const float* x, uint32_t n, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow, uint32_t window, uint32_t stride, uint32_t padding) {
    uint32_t i = blockIdx.x * POOL_THREADS + threadIdx.x;
    if (i >= n * oh * ow * c) return;
    At at = locate(i, oh, ow, c);
    Range rows = field(at.row, h, oh, window, stride, padding), columns = field(at.column, w, ow, window, stride, padding);
    const float* image = x + at.image * h * w * c + at.channel;
    float weight = share(rows, columns, window), sum = 0.0f;
    for (uint32_t row = rows.from; row < rows.to; ++row)
        for (uint32_t column = columns.from; column < columns.to; ++column)
            sum = __fadd_rn(sum, __fmul_rn(image[(row * w + column) * c], weight));
    y[i] = sum;
}
KERNEL(mean_pool_f32);

extern "C" __global__ void __launch_bounds__(POOL_THREADS)
mean_pool_backward_f32(float* dx, const float* dy, uint32_t n, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow, uint32_t window, uint32_t stride, uint32_t padding) {
    uint32_t i = blockIdx.x * POOL_THREADS + threadIdx.x;
    if (i >= n * h * w * c) return;
    At at = locate(i, h, w, c);
    Range rows = readers(at.row, h, oh, window, stride, padding), columns = readers(at.column, w, ow, window, stride, padding);
    float sum = dx[i];
    for (uint32_t row = rows.from; row < rows.to; ++row)
        for (uint32_t column = columns.from; column < columns.to; ++column) {
            float weight = share(field(row, h, oh, window, stride, padding), field(column, w, ow, window, stride, padding), window);
            sum = __fadd_rn(sum, __fmul_rn(dy[((at.image * oh + row) * ow + column) * c + at.channel], weight));
        }
    dx[i] = sum;
}
KERNEL(mean_pool_backward_f32);
