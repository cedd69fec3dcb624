/*
shape.cu: operations that only move values. The position of a class token, a table of position embeddings, some tokens
out of all, channels side by side, and their adjoints all copy (or add) rows of one buffer to rows of another:
`rows_f32`. The positions of an image window by window, and tokens as channels, are another order of its positions:
`bands_f32`. The option-A shortcut of CIFAR ResNets takes every stride-th position and pads channels on both sides.

One thread handles one output element.
*/
#include "common/gpu.h"
#include "tiles.h"

// y[r y_apart + i] = x[r x_apart + i] for i < len, or y += it. `apart` is a row stride; x_apart = 0 repeats one row.
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
rows_f32(float* y, const float* x, uint32_t rows, uint32_t len, uint32_t y_apart, uint32_t x_apart, uint32_t add) {
    uint32_t at = blockIdx.x * SHAPE_THREADS + threadIdx.x, row = at / len, i = at % len;
    if (row >= rows) return;
    float value = x[row * x_apart + i];
    float* to = y + row * y_apart + i;
    *to = add ? *to + value : value;
}
KERNEL(rows_f32);

// The positions of x [n, rows, columns, c] in the order of bands: `height` rows from the top make a band, whose positions
// come column by column, behind a cyclic shift; `back`: from that order. y = them, or y += them.
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
bands_f32(float* y, const float* x, uint32_t n, uint32_t rows, uint32_t columns, uint32_t c, uint32_t height, uint32_t down, uint32_t right, uint32_t back, uint32_t add) {
    uint32_t i = blockIdx.x * SHAPE_THREADS + threadIdx.x;
    if (i >= n * rows * columns * c) return;
    uint32_t position = i / c, line = position / height, band = line / columns;  // bands of all images
    uint32_t bands = rows / height, row = (band % bands * height + position % height + down) % rows;
    uint32_t place = ((band / bands * rows + row) * columns + (line % columns + right) % columns) * c + i % c;
    float value = x[back ? i : place];
    float* to = y + (back ? place : i);
    *to = add ? *to + value : value;
}
KERNEL(bands_f32);

// y [n, oh, ow, oc] = every stride-th position of x [n, h, w, c], zeros in the other channels.
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
shortcut_f32(float* y, const float* x, uint32_t n, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow, uint32_t oc, uint32_t stride) {
    uint32_t i = blockIdx.x * SHAPE_THREADS + threadIdx.x;
    if (i >= n * oh * ow * oc) return;
    uint32_t channel = i % oc - (oc - c) / 2, position = i / oc, line = position / ow;  // negative channels wrap to huge ones
    uint32_t row = line % oh * stride, column = position % ow * stride;
    y[i] = channel < c ? x[((line / oh * h + row) * w + column) * c + channel] : 0.0f;
}
KERNEL(shortcut_f32);

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

// y[i] += sum over rows r of x[r apart + i], i < len, in order, in f64.
extern "C" __global__ void __launch_bounds__(SHAPE_THREADS)
sum_rows_f32(float* y, const float* x, uint32_t rows, uint32_t len, uint32_t apart) {
    uint32_t i = blockIdx.x * SHAPE_THREADS + threadIdx.x;
    if (i >= len) return;
    double sum = 0.0;
    for (uint32_t row = 0; row < rows; ++row) sum += x[row * apart + i];
    y[i] += float(sum);
}
KERNEL(sum_rows_f32);
