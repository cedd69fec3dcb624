/*
conv.cu: an affine layer (MATH.md, Eq. 7): z = Wx + b with what its node does with it, and its adjoints. Filters are
those of a convolution, grouped or not; a linear layer is one of 1 x 1. x [n, h, w, c], weight [o, r s c/groups],
z [n, oh, ow, o].

Implicit matrix products of common/gemm.h for each group, gathered on the way to shared memory, zeros in the padding:

    product              rows             columns           depth
    z = Wx + b           output pixels    output channels   taps and input channels
    dx = W^T dz          input pixels     input channels    taps and output channels
    dW = dz^T x          output channels  taps and inputs   output pixels, in chunks that are added up in order

With `rows`, the weights at hand are those of some output channels only, ascending, and only these take part. Groups of
few channels leave most of a tile empty: correct, and slow.
*/
#include "common/gemm.h"

struct Layer {
    uint32_t h, w, c, oh, ow, o, r, s, stride, above, left, dilation, groups;

    DEVICE uint32_t inner() const { return c / groups; }
    DEVICE uint32_t outer() const { return o / groups; }
    DEVICE uint32_t depth() const { return r * s * inner(); }
};

// A position of an image; not inside where the tile goes beyond the last one.
struct Pixel {
    uint32_t image, row, column;
    bool inside;

    DEVICE Pixel(uint32_t at, uint32_t end, uint32_t h, uint32_t w)
        : image(at / w / h), row(at / w % h), column(at % w), inside(at < end) {}
};

// Place and channel of the k-th of r s `channels` values that a filter reads.
struct Tap {
    uint32_t down, right, channel;
    bool inside;

    DEVICE Tap(uint32_t k, uint32_t channels, const Layer& l)
        : down(k / channels / l.s * l.dilation), right(k / channels % l.s * l.dilation), channel(k % channels),
          inside(k < l.r * l.s * channels) {}
};

// How many of ascending rows are below one.
DEVICE uint32_t rows_below(const uint32_t* rows, uint32_t count, uint32_t row) {
    uint32_t first = 0;
    while (count > 0) {
        uint32_t half = count / 2;
        if (rows[first + half] < row) first += half + 1, count -= half + 1;
        else count = half;
    }
    return first;
}

// The rows of the weights at hand that one group has, and which output channels they are.
struct Channels {
    const uint32_t* rows;
    uint32_t first, count, last;

    DEVICE Channels(const uint32_t* rows, uint32_t count, uint32_t group, const Layer& l)
        : rows(rows), first(group * l.outer()), count(l.outer()), last(l.o - 1) {
        if (!rows) return;
        first = rows_below(rows, count, group * l.outer());
        this->count = rows_below(rows, count, (group + 1) * l.outer()) - first;
    }
    DEVICE uint32_t operator[](uint32_t at) const { return rows ? min(rows[first + at], last) : first + at; }
};

// The most tiles of channels that a group needs.
DEVICE uint32_t channel_tiles(const uint32_t* rows, uint32_t count, const Layer& l) {
    return ((rows ? min(l.outer(), count) : l.outer()) + GEMM_TILE - 1) / GEMM_TILE;
}

// Where the filter at an output pixel reads x under a tap; null in the padding.
DEVICE const float* field(const float* x, const Pixel& at, const Tap& tap, uint32_t group, const Layer& l) {
    uint32_t row = at.row * l.stride + tap.down - l.above, column = at.column * l.stride + tap.right - l.left;
    bool inside = at.inside && tap.inside && row < l.h && column < l.w;  // what is below 0 is huge
    return inside ? x + ((at.image * l.h + row) * l.w + column) * l.c + group * l.inner() + tap.channel : nullptr;
}

// Where the output pixel that reads a pixel of x under a tap has its dz; null where the stride or an edge leaves none.
DEVICE const float* reader(const float* dz, const Pixel& at, const Tap& tap, uint32_t channel, const Layer& l) {
    uint32_t row = at.row + l.above - tap.down, column = at.column + l.left - tap.right;
    bool inside = at.inside && tap.inside && tap.down <= at.row + l.above && tap.right <= at.column + l.left;
    inside = inside && row % l.stride == 0 && column % l.stride == 0;
    row /= l.stride, column /= l.stride;
    uint32_t pixel = (at.image * l.oh + row) * l.ow + column;
    return inside && row < l.oh && column < l.ow ? dz + pixel * l.o + channel : nullptr;
}

DEVICE bool aligned(const void* p) { return uintptr_t(p) % 16 == 0; }

// GELU is a Phi(a), the normal distribution by erfc.
DEVICE float activated(float a, uint32_t activation) {
    if (activation == CONV_RELU) return a > 0.0f ? a : 0.0f;
    return activation == CONV_GELU ? 0.5f * a * erfcf(-0.70710678f * a) : a;
}

// z = Wx + b, then y = act(scale z + shift + residual), or (`add`) y += z. Null: no such part, or all rows.
// parts [tile, segment, o]: for every image that a tile of pixels meets, the sum of z over its pixels in the tile.
extern "C" __global__ void __launch_bounds__(GEMM_THREADS)
conv_f32(float* y, double* parts, const float* x, const float* weight, const float* bias, const float* scale, const float* shift, const float* residual, const uint32_t* rows, uint32_t count, uint32_t pixels, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow, uint32_t o, uint32_t r, uint32_t s, uint32_t stride, uint32_t above, uint32_t left, uint32_t dilation, uint32_t groups, uint32_t segments, uint32_t activation, uint32_t add) {
    using Memory = Tiles<ByRow, ByRow>;
    SHARED(Memory, tiles);
    const Layer l{h, w, c, oh, ow, o, r, s, stride, above, left, dilation, groups};
    uint32_t tall = channel_tiles(rows, count, l), first = blockIdx.x % tall * GEMM_TILE;
    uint32_t group = blockIdx.x / tall % groups, tile = blockIdx.x / tall / groups;
    uint32_t pixel = tile * GEMM_TILE, inner = l.inner(), depth = l.depth();
    const Channels channels(rows, count, group, l);
    if (first >= channels.count) return;

    uint32_t line = threadIdx.x / 4;
    const Pixel at[2] = {{pixel + line, pixels, oh, ow}, {pixel + line + 32, pixels, oh, ow}};
    bool wide = inner % 4 == 0 && aligned(x) && aligned(weight);
    gemm(tiles, (depth + GEMM_DEPTH - 1) / GEMM_DEPTH,
         [&](auto& to, uint32_t step) {
             fill(to.a, step, wide, x, [&](uint32_t j, uint32_t, uint32_t k) {
                 return field(x, at[j], Tap(k, inner, l), group, l);
             });
             fill(to.b, step, wide, weight, [&](uint32_t, uint32_t row, uint32_t k) {
                 bool there = first + row < channels.count && k < depth;
                 return there ? weight + uint64_t(channels.first + first + row) * depth + k : nullptr;
             });
         },
         [](const auto&) {});

    uint32_t column = threadIdx.x % GEMM_TILE, end = min(GEMM_TILE, pixels - pixel);
    if (first + column >= channels.count) return;
    uint32_t channel = channels[first + column], index = channels.first + first + column;
    float b = bias ? bias[index] : 0.0f;
    if (parts && threadIdx.x < GEMM_TILE) {
        uint32_t positions = oh * ow, image = pixel / positions;
        double* part = parts + uint64_t(tile) * segments * o + channel;
        for (uint32_t row = 0; row < end; ++image, part += o) {
            uint32_t stop = min(end, (image + 1) * positions - pixel);
            double sum = 0.0;
            for (; row < stop; ++row) sum += tiles.out[row][column] + b;
            *part = sum;
        }
    }
    for (uint32_t row = threadIdx.x / GEMM_TILE; row < end; row += GEMM_THREADS / GEMM_TILE) {
        uint32_t to = (pixel + row) * o + channel;
        float value = tiles.out[row][column] + b;
        if (scale) value = __fadd_rn(__fmul_rn(value, scale[channel]), shift[channel]);
        if (residual) value += residual[to];
        value = activated(value, activation);
        y[to] = add ? y[to] + value : value;
    }
}
KERNEL(conv_f32);

// dx = or (`add`) += W^T dz; null `rows`: all of them.
extern "C" __global__ void __launch_bounds__(GEMM_THREADS)
conv_data_f32(float* dx, const float* dz, const float* weight, const uint32_t* rows, uint32_t count, uint32_t pixels, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow, uint32_t o, uint32_t r, uint32_t s, uint32_t stride, uint32_t above, uint32_t left, uint32_t dilation, uint32_t groups, uint32_t add) {
    using Memory = Tiles<ByRow, ByDepth>;
    SHARED(Memory, tiles);
    const Layer l{h, w, c, oh, ow, o, r, s, stride, above, left, dilation, groups};
    uint32_t inner = l.inner(), wide = (inner + GEMM_TILE - 1) / GEMM_TILE, group = blockIdx.x / wide % groups;
    uint32_t first = blockIdx.x % wide * GEMM_TILE, pixel = blockIdx.x / wide / groups * GEMM_TILE;
    const Channels channels(rows, count, group, l);

    uint32_t line = threadIdx.x / 4, depth = r * s * channels.count;
    const Pixel at[2] = {{pixel + line, pixels, h, w}, {pixel + line + 32, pixels, h, w}};
    bool quads = !rows && l.outer() % 4 == 0 && aligned(dz), quads_of_weight = inner % 4 == 0 && aligned(weight);
    gemm(tiles, (depth + GEMM_DEPTH - 1) / GEMM_DEPTH,
         [&](auto& to, uint32_t step) {
             fill(to.a, step, quads, dz, [&](uint32_t j, uint32_t, uint32_t k) {
                 const Tap tap(k, channels.count, l);
                 return reader(dz, at[j], tap, channels[tap.channel], l);
             });
             fill(to.b, step, quads_of_weight, weight, [&](uint32_t, uint32_t column, uint32_t k) {
                 uint32_t row = channels.first + k % channels.count, tap = k / channels.count;
                 const float* from = weight + uint64_t(row) * l.depth() + tap * inner + first + column;
                 return first + column < inner && k < depth ? from : nullptr;
             });
         },
         [](const auto&) {});

    uint32_t column = threadIdx.x % GEMM_TILE, end = min(GEMM_TILE, pixels - pixel);
    if (first + column >= inner) return;
    for (uint32_t row = threadIdx.x / GEMM_TILE; row < end; row += GEMM_THREADS / GEMM_TILE) {
        float* to = dx + (pixel + row) * c + group * inner + first + column;
        *to = add ? *to + tiles.out[row][column] : tiles.out[row][column];
    }
}
KERNEL(conv_data_f32);

// parts [chunk of `size` pixels, count, depth + 1]: of every chunk dz^T x for the rows at hand, each followed by the
// sum of its dz.
extern "C" __global__ void __launch_bounds__(GEMM_THREADS)
conv_weight_f32(float* parts, const float* dz, const float* x, const uint32_t* rows, uint32_t count, uint32_t pixels, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow, uint32_t o, uint32_t r, uint32_t s, uint32_t stride, uint32_t above, uint32_t left, uint32_t dilation, uint32_t groups, uint32_t size) {
    using Memory = Tiles<ByDepth, ByDepth>;
    SHARED(Memory, tiles);
    const Layer l{h, w, c, oh, ow, o, r, s, stride, above, left, dilation, groups};
    uint32_t inner = l.inner(), depth = l.depth(), wide = (depth + GEMM_TILE - 1) / GEMM_TILE;
    uint32_t tall = channel_tiles(rows, count, l), first = blockIdx.x % tall * GEMM_TILE;  // row of the tile
    uint32_t group = blockIdx.x / tall % groups, tile = blockIdx.x / tall / groups;
    uint32_t start = tile % wide * GEMM_TILE;  // its column
    uint32_t chunk = tile / wide, begin = chunk * size, end = min(pixels, begin + size);
    const Channels channels(rows, count, group, l);
    if (first >= channels.count) return;

    bool quads = !rows && l.outer() % 4 == 0 && aligned(dz), quads_of_x = inner % 4 == 0 && aligned(x);
    double sum = 0.0;  // of dz, in the block that has the first columns
    gemm(tiles, (end - begin + GEMM_DEPTH - 1) / GEMM_DEPTH,
         [&](auto& to, uint32_t step) {
             fill(to.a, step, quads, dz, [&](uint32_t, uint32_t row, uint32_t k) {
                 bool there = first + row < channels.count && begin + k < end;
                 return there ? dz + (begin + k) * o + channels[first + row] : nullptr;
             });
             fill(to.b, step, quads_of_x, x, [&](uint32_t, uint32_t column, uint32_t k) {
                 return field(x, Pixel(begin + k, end, oh, ow), Tap(start + column, inner, l), group, l);
             });
         },
         [&](const auto& stage) {
             if (start > 0 || threadIdx.x >= GEMM_TILE) return;
             for (uint32_t k = 0; k < GEMM_DEPTH; ++k) sum += stage.a.of[k][threadIdx.x];
         });

    float* part = parts + (uint64_t(chunk) * count + channels.first + first) * (depth + 1);
    uint32_t column = threadIdx.x % GEMM_TILE, rows_end = min(GEMM_TILE, channels.count - first);
    if (start == 0 && threadIdx.x < rows_end) part[uint64_t(threadIdx.x) * (depth + 1) + depth] = float(sum);
    if (start + column >= depth) return;
    for (uint32_t row = threadIdx.x / GEMM_TILE; row < rows_end; row += GEMM_THREADS / GEMM_TILE)
        part[uint64_t(row) * (depth + 1) + start + column] = tiles.out[row][column];
}
KERNEL(conv_weight_f32);
