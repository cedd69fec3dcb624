/*
affine.h: what the kernels of an affine layer share: its shape, the output channels that take part, and the epilogue of
a node on z = Wx + b. A linear layer is a 1 x 1 convolution.
*/
#pragma once
#include "../tiles.h"
#include "ascending.h"
#include "element.h"

struct Layer {
    uint32_t h, w, c, oh, ow, o, r, s, stride, above, left, dilation, groups;

    DEVICE uint32_t inner() const { return c / groups; }
    DEVICE uint32_t outer() const { return o / groups; }
    DEVICE uint32_t depth() const { return r * s * inner(); }
    DEVICE uint32_t positions() const { return oh * ow; }
};

// Parameters of the kernels that compute z, dx and dW; src/device/cuda/parameters.rs has the same structs. Null: no such
// term, or all rows. X, W and Y are the element types of the input, the weights and the result.
template <class X, class W, class Y> struct AffineParameters {
    Y* y;
    double* parts;
    const X* x;
    const W* weight;
    const float *bias, *scale, *shift;
    const Y* residual;
    const uint32_t* rows;
    uint32_t* overflow;
    Layer layer;
    uint32_t count, pixels, segments, activation, add;
};
struct DataParameters {
    float* dx;
    const float *dz, *weight;
    const uint32_t* rows;
    Layer layer;
    uint32_t count, pixels, add;
};
struct WeightParameters {
    float* parts;
    const float *dz, *x;
    const uint32_t* rows;
    Layer layer;
    uint32_t count, pixels, size;
};

// A position of an image; not `inside` where the tile extends beyond the last position.
struct Pixel {
    uint32_t image, row, column;
    bool inside;

    DEVICE Pixel(uint32_t at, uint32_t end, uint32_t h, uint32_t w)
        : image(at / w / h), row(at / w % h), column(at % w), inside(at < end) {}
};

// The given weight rows that belong to one group, and their output channels.
struct Channels {
    const uint32_t* rows;
    uint32_t first, count, last;

    DEVICE Channels(const uint32_t* rows, uint32_t count, uint32_t group, const Layer& l)
        : rows(rows), first(group * l.outer()), count(l.outer()), last(l.o - 1) {
        if (!rows) return;
        first = below(rows, count, group * l.outer());
        this->count = below(rows, count, (group + 1) * l.outer()) - first;
    }
    DEVICE uint32_t operator[](uint32_t at) const { return rows ? min(rows[first + at], last) : first + at; }
};

// Points to the x that an output pixel reads, down and right of its corner, in this channel; null in the padding.
template <class T>
DEVICE const T* field(const T* x, const Pixel& at, uint32_t down, uint32_t right, uint32_t channel, const Layer& l) {
    uint32_t row = at.row * l.stride + down - l.above, column = at.column * l.stride + right - l.left;
    bool inside = at.inside && row < l.h && column < l.w;  // negative positions wrap to huge ones
    return inside ? x + ((at.image * l.h + row) * l.w + column) * l.c + channel : nullptr;
}

// Tap and channel of the k-th of the r s `channels` values that a filter reads.
struct Tap {
    uint32_t down, right, channel;
    bool inside;

    DEVICE Tap(uint32_t k, uint32_t channels, const Layer& l)
        : down(k / channels / l.s * l.dilation), right(k / channels % l.s * l.dilation), channel(k % channels),
          inside(k < l.r * l.s * channels) {}
};

// Points to the x that a filter of a group reads under a tap; null in the padding.
template <class T>
DEVICE const T* field(const T* x, const Pixel& at, const Tap& tap, uint32_t group, const Layer& l) {
    return tap.inside ? field(x, at, tap.down, tap.right, group * l.inner() + tap.channel, l) : nullptr;
}

DEVICE bool aligned(const void* p) { return uintptr_t(p) % 16 == 0; }

// Along an axis, the positions of x with one remainder by the stride (first, first + stride, ..), and the taps under
// which outputs read them (tap, tap + step, ..). Under the other taps, no output reads them.
struct Phase {
    uint32_t first, count, tap, step, taps;

    DEVICE Phase(uint32_t first, uint32_t side, uint32_t before, uint32_t filter, const Layer& l)
        : first(first), count(first < side ? (side - first + l.stride - 1) / l.stride : 0), tap(0), step(1) {
        while (step * l.dilation % l.stride != 0) ++step;
        while (tap < step && tap * l.dilation % l.stride != (first + before) % l.stride) ++tap;
        taps = tap < min(step, filter) ? (filter - tap + step - 1) / step : 0;
    }
};

// Points to the dz of the output that reads a pixel of x at down and right of its corner, given that the stride leaves
// one; null beyond the edge.
DEVICE const float* reader(const float* dz, const Pixel& at, uint32_t down, uint32_t right, uint32_t channel, const Layer& l) {
    bool inside = at.inside && down <= at.row + l.above && right <= at.column + l.left;
    uint32_t row = (at.row + l.above - down) / l.stride, column = (at.column + l.left - right) / l.stride;
    uint32_t pixel = (at.image * l.oh + row) * l.ow + column;
    return inside && row < l.oh && column < l.ow ? dz + pixel * l.o + channel : nullptr;
}

// GELU, a Phi(a), for a result of type Y: the normal distribution by erfc. Where the result is rounded to 16 bits, Phi(-x) for
// x > 0 is exp(-x^2 / 2) t p(t), t = 1 / (1 + 0.2316419 x), off by 7.5e-8 at most (Abramowitz and Stegun, 26.2.17), which takes
// a third of the instructions. Of an infinite x it is NaN.
template <class Y> DEVICE float gelu(float a) {
    if constexpr (sizeof(Y) == 4) {
        return 0.5f * a * erfcf(-0.70710678f * a);
    } else {
        float t = reciprocal(__fmaf_rn(0.2316419f, fabsf(a), 1.0f));
        float p = __fmaf_rn(__fmaf_rn(0.530702714f, t, -0.726576013f), t, 0.710706871f);
        p = __fmaf_rn(__fmaf_rn(p, t, -0.142248368f), t, 0.127414796f);
        float tail = a * t * p * power_of_two(-0.72134752f * a * a);  // a Phi(-|a|); 0.72.. is log2(e) / 2
        return a > 0.0f ? a - tail : tail;
    }
}

template <class Y> DEVICE float activated(float a, uint32_t activation) {
    if (activation == CONV_RELU) return a > 0.0f ? a : 0.0f;
    return activation == CONV_GELU ? gelu<Y>(a) : a;
}

// parts [tile, segment, o] = for every image that a tile of pixels covers, the sum of z over its pixels in the tile, of one
// channel (the index-th given one) whose Wx is at(row): of sums in f32, before anything is rounded.
template <class P, class At> DEVICE void add_up(const P& p, uint32_t tile, uint32_t channel, uint32_t index, At at) {
    uint32_t pixel = tile * GEMM_TILE, end = min(GEMM_TILE, p.pixels - pixel), o = p.layer.o;
    uint32_t positions = p.layer.positions(), image = pixel / positions;
    float b = p.bias ? p.bias[index] : 0.0f;
    double* part = p.parts + uint64_t(tile) * p.segments * o + channel;
    for (uint32_t row = 0; row < end; ++image, part += o) {
        uint32_t stop = min(end, (image + 1) * positions - pixel);
        double sum = 0.0;
        for (; row < stop; ++row) sum += at(row) + b;
        *part = sum;
    }
}

// The epilogue of a node on z = Wx + b: y = act(scale z + shift + residual), or (`add`) y += z. Null: no such term.
// Applies to one channel of a tile, for the rows first, first + step, .. The thread of row 0 also adds up the images.
// Only y is rounded to its type; `overflow` notes where it has no such value.
template <class X, class W, class Y, class At>
DEVICE void finish(const AffineParameters<X, W, Y>& p, uint32_t tile, uint32_t channel, uint32_t index, uint32_t first, uint32_t step, At at) {
    uint32_t pixel = tile * GEMM_TILE, end = min(GEMM_TILE, p.pixels - pixel);
    float b = p.bias ? p.bias[index] : 0.0f;
    if (p.parts && first == 0) add_up(p, tile, channel, index, at);
    bool fit = true;
    for (uint32_t row = first; row < end; row += step) {
        uint32_t to = (pixel + row) * p.layer.o + channel;
        float value = at(row) + b;
        if (p.scale) value = __fadd_rn(__fmul_rn(value, p.scale[channel]), p.shift[channel]);
        if (p.residual) value += load(p.residual + to);
        value = activated<Y>(value, p.activation);
        if (p.add) value += load(p.y + to);
        fit = fit && fits<Y>(value);
        store(p.y + to, value);
    }
    note(p.overflow, fit);
}
