/*
shape.cu: operations that only move values. The position of a class token, a table of position embeddings, some tokens
out of all, channels side by side, and their adjoints all copy (or add) rows of one buffer to rows of another:
`rows_f32`. The positions of an image window by window, and tokens as channels, are another order of its positions:
`bands_f32`. The option-A shortcut of CIFAR ResNets takes every stride-th position and pads channels on both sides.

One thread handles one output element. Values of 16 bits are moved as they are, and rounded once where they are added.
*/
#include "common/element.h"
#include "tiles.h"

// y[r y_stride + i] = x[r x_stride + i] for i < len, or y += it. The strides are those of rows; x_stride = 0 repeats one row.
template <class T>
DEVICE void move_rows(T* y, const T* x, uint32_t rows, uint32_t len, uint32_t y_stride, uint32_t x_stride, uint32_t add) {
    uint32_t at = blockIdx.x * SHAPE_THREADS + threadIdx.x, row = at / len, i = at % len;
    if (row >= rows) return;
    float value = load(x + row * x_stride + i);
    T* to = y + row * y_stride + i;
    store(to, add ? load(to) + value : value);
}
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
rows_f32(float* y, const float* x, uint32_t rows, uint32_t len, uint32_t y_stride, uint32_t x_stride, uint32_t add) { move_rows(y, x, rows, len, y_stride, x_stride, add); }
KERNEL(rows_f32);
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
rows_bf16(bf16* y, const bf16* x, uint32_t rows, uint32_t len, uint32_t y_stride, uint32_t x_stride, uint32_t add) { move_rows(y, x, rows, len, y_stride, x_stride, add); }
KERNEL(rows_bf16);
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
rows_f16(f16* y, const f16* x, uint32_t rows, uint32_t len, uint32_t y_stride, uint32_t x_stride, uint32_t add) { move_rows(y, x, rows, len, y_stride, x_stride, add); }
KERNEL(rows_f16);

// The positions of x [n, rows, columns, c] in the order of bands: `height` rows from the top make a band, whose positions
// come column by column, behind a cyclic shift; `back`: from that order. y = them, or y += them.
template <class T>
DEVICE void bands(T* y, const T* x, uint32_t n, uint32_t rows, uint32_t columns, uint32_t c, uint32_t height, uint32_t down, uint32_t right, uint32_t back, uint32_t add) {
    uint32_t i = blockIdx.x * SHAPE_THREADS + threadIdx.x;
    if (i >= n * rows * columns * c) return;
    uint32_t position = i / c, line = position / height, band = line / columns;  // bands of all images
    uint32_t each = rows / height, row = (band % each * height + position % height + down) % rows;
    uint32_t place = ((band / each * rows + row) * columns + (line % columns + right) % columns) * c + i % c;
    float value = load(x + (back ? i : place));
    T* to = y + (back ? place : i);
    store(to, add ? load(to) + value : value);
}
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
bands_f32(float* y, const float* x, uint32_t n, uint32_t rows, uint32_t columns, uint32_t c, uint32_t height, uint32_t down, uint32_t right, uint32_t back, uint32_t add) { bands(y, x, n, rows, columns, c, height, down, right, back, add); }
KERNEL(bands_f32);
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
bands_bf16(bf16* y, const bf16* x, uint32_t n, uint32_t rows, uint32_t columns, uint32_t c, uint32_t height, uint32_t down, uint32_t right, uint32_t back, uint32_t add) { bands(y, x, n, rows, columns, c, height, down, right, back, add); }
KERNEL(bands_bf16);
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
bands_f16(f16* y, const f16* x, uint32_t n, uint32_t rows, uint32_t columns, uint32_t c, uint32_t height, uint32_t down, uint32_t right, uint32_t back, uint32_t add) { bands(y, x, n, rows, columns, c, height, down, right, back, add); }
KERNEL(bands_f16);

// y [n, oh, ow, oc] = every stride-th position of x [n, h, w, c], zeros in the other channels.
template <class T>
DEVICE void shortcut(T* y, const T* x, uint32_t n, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow, uint32_t oc, uint32_t stride) {
    uint32_t i = blockIdx.x * SHAPE_THREADS + threadIdx.x;
    if (i >= n * oh * ow * oc) return;
    uint32_t channel = i % oc - (oc - c) / 2, position = i / oc, line = position / ow;  // negative channels wrap to huge ones
    uint32_t row = line % oh * stride, column = position % ow * stride;
    store(y + i, channel < c ? load(x + ((line / oh * h + row) * w + column) * c + channel) : 0.0f);
}
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
shortcut_f32(float* y, const float* x, uint32_t n, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow, uint32_t oc, uint32_t stride) { shortcut(y, x, n, h, w, c, oh, ow, oc, stride); }
KERNEL(shortcut_f32);
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
shortcut_bf16(bf16* y, const bf16* x, uint32_t n, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow, uint32_t oc, uint32_t stride) { shortcut(y, x, n, h, w, c, oh, ow, oc, stride); }
KERNEL(shortcut_bf16);
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
shortcut_f16(f16* y, const f16* x, uint32_t n, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow, uint32_t oc, uint32_t stride) { shortcut(y, x, n, h, w, c, oh, ow, oc, stride); }
KERNEL(shortcut_f16);

// The adjoint of the shortcut, added to dx.
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
shortcut_backward_f32(float* dx, const float* dy, uint32_t n, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow, uint32_t oc, uint32_t stride) {
    uint32_t i = blockIdx.x * SHAPE_THREADS + threadIdx.x;
    if (i >= n * h * w * c) return;
    uint32_t position = i / c, line = position / w, row = line % h, column = position % w;
    if (row % stride || column % stride || row / stride >= oh || column / stride >= ow) return;
    uint32_t channel = i % c + (oc - c) / 2;
    dx[i] += dy[((line / h * oh + row / stride) * ow + column / stride) * oc + channel];
}
KERNEL(shortcut_backward_f32);

// y[i] += sum over rows r of x[r stride + i], i < len, in order, in f64.
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
sum_rows_f32(float* y, const float* x, uint32_t rows, uint32_t len, uint32_t stride) {
    uint32_t i = blockIdx.x * SHAPE_THREADS + threadIdx.x;
    if (i >= len) return;
    double sum = 0.0;
    for (uint32_t row = 0; row < rows; ++row) sum += x[row * stride + i];
    y[i] += float(sum);
}
KERNEL(sum_rows_f32);
