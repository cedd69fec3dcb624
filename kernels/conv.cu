/*
conv.cu: an affine layer (MATH.md, Eq. 7): z = Wx + b with its node's epilogue, and its adjoints. The layer is a
convolution, grouped or not; a linear layer is a 1 x 1 convolution. x [n, h, w, c], weight [o, r s c/groups], z [n, oh,
ow, o].

Implicit matrix products of common/gemm.h, one per group. Operands are gathered on the way to shared memory, with zeros
in the padding:

    product              rows             columns           depth
    z = Wx + b           output pixels    output channels   taps and input channels
    dx = W^T dz          input pixels     input channels    taps and output channels
    dW = dz^T x          output channels  taps and inputs   output pixels, in chunks that are added up in order

With a stride, an input pixel is read under some of the taps only. A tile of dx therefore holds pixels of equal
remainder by the stride, which share their taps, and its depth is these taps alone. No product multiplies a zero that
the stride inserts.

With `rows`, `weight` holds only some output channels, ascending, and only these take part. Groups of few channels leave
most of a tile empty: correct, but slow. Groups of one input channel use depthwise.cu.
*/
#include "common/affine.h"
#include "common/gemm.h"

// The largest number of channel tiles that a group needs.
DEVICE uint32_t channel_tiles(const uint32_t* rows, uint32_t count, const Layer& l) {
    return ((rows ? min(l.outer(), count) : l.outer()) + GEMM_TILE - 1) / GEMM_TILE;
}

// z = Wx + b with the epilogue of a node. x and the weights are in memory as their kind says; y, and the residual that is
// added to it, may be wider. Null `rows`: all output channels.
template <Operands KIND, class X, class Y> DEVICE void affine(const AffineParameters<X, X, Y>& p) {
    using Memory = Tiles<ByRow<X>, ByRow<X>>;
    SHARED(Memory, tiles);
    const Layer& l = p.layer;
    uint32_t tall = channel_tiles(p.rows, p.count, l), first = blockIdx.x % tall * GEMM_TILE;
    uint32_t group = blockIdx.x / tall % l.groups, tile = blockIdx.x / tall / l.groups;
    uint32_t pixel = tile * GEMM_TILE, inner = l.inner(), depth = l.depth();
    const Channels channels(p.rows, p.count, group, l);
    if (first >= channels.count) return;

    uint32_t line = threadIdx.x / 4;
    const Pixel at[2] = {{pixel + line, p.pixels, l.oh, l.ow}, {pixel + line + 32, p.pixels, l.oh, l.ow}};
    bool wide = inner % ByRow<X>::LINE == 0 && aligned(p.x) && aligned(p.weight);
    gemm<KIND>(tiles, (depth + DEPTH<X> - 1) / DEPTH<X>,
         [&](auto& to, uint32_t step) {
             fill(to.a, step, wide, p.x, [&](uint32_t j, uint32_t, uint32_t k) {
                 return field(p.x, at[j], Tap(k, inner, l), group, l);
             });
             fill(to.b, step, wide, p.weight, [&](uint32_t, uint32_t row, uint32_t k) {
                 bool there = first + row < channels.count && k < depth;
                 return there ? p.weight + uint64_t(channels.first + first + row) * depth + k : nullptr;
             });
         },
         [](const auto&) {});

    uint32_t column = threadIdx.x % GEMM_TILE, row = threadIdx.x / GEMM_TILE;
    if (first + column >= channels.count) return;
    finish(p, tile, channels[first + column], channels.first + first + column, row, GEMM_THREADS / GEMM_TILE,
           [&](uint32_t row) { return tiles.out[row][column]; });
}

extern "C" __global__ void __launch_bounds__(GEMM_THREADS)
conv_f32(const __grid_constant__ AffineParameters<float, float, float> p) { affine<Operands::F32>(p); }
KERNEL(conv_f32);
extern "C" __global__ void __launch_bounds__(GEMM_THREADS)
conv_tf32(const __grid_constant__ AffineParameters<float, float, float> p) { affine<Operands::TF32>(p); }
KERNEL(conv_tf32);
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 4)
conv_bf16(const __grid_constant__ AffineParameters<bf16, bf16, bf16> p) { affine<Operands::BF16>(p); }
KERNEL(conv_bf16);
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 4)
conv_f16(const __grid_constant__ AffineParameters<f16, f16, f16> p) { affine<Operands::F16>(p); }
KERNEL(conv_f16);
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 4)
conv_bf16_wide(const __grid_constant__ AffineParameters<bf16, bf16, float> p) { affine<Operands::BF16>(p); }
KERNEL(conv_bf16_wide);
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 4)
conv_f16_wide(const __grid_constant__ AffineParameters<f16, f16, float> p) { affine<Operands::F16>(p); }
KERNEL(conv_f16_wide);

// dx = W^T dz, or (`add`) dx += W^T dz. Null `rows`: all output channels.
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 4)
conv_data_f32(const __grid_constant__ DataParameters p) {
    using Memory = Tiles<ByRow<float>, ByDepth>;
    SHARED(Memory, tiles);
    const Layer& l = p.layer;
    uint32_t inner = l.inner(), wide = (inner + GEMM_TILE - 1) / GEMM_TILE, rest = blockIdx.x / wide;
    uint32_t first = blockIdx.x % wide * GEMM_TILE, group = rest / l.stride / l.stride % l.groups;
    const Phase tall(rest / l.stride % l.stride, l.h, l.above, l.r, l), across(rest % l.stride, l.w, l.left, l.s, l);
    uint32_t pixel = rest / l.stride / l.stride / l.groups * GEMM_TILE;
    uint32_t end = p.pixels / l.h / l.w * tall.count * across.count;
    if (pixel >= end) return;
    const Channels channels(p.rows, p.count, group, l);
    auto place = [&](uint32_t row) {
        Pixel at(pixel + row, end, tall.count, across.count);
        at.row = tall.first + at.row * l.stride, at.column = across.first + at.column * l.stride;
        return at;
    };

    uint32_t line = threadIdx.x / 4, depth = tall.taps * across.taps * channels.count;
    const Pixel at[2] = {place(line), place(line + 32)};
    bool quads = !p.rows && l.outer() % 4 == 0 && aligned(p.dz), quads_of_weight = inner % 4 == 0 && aligned(p.weight);
    gemm(tiles, (depth + GEMM_DEPTH - 1) / GEMM_DEPTH,
         [&](auto& to, uint32_t step) {
             fill(to.a, step, quads, p.dz, [&](uint32_t j, uint32_t, uint32_t k) {
                 uint32_t tap = k / channels.count, down = tall.tap + tap / across.taps * tall.step;
                 uint32_t right = across.tap + tap % across.taps * across.step;
                 const float* from =
                     reader(p.dz, at[j], down * l.dilation, right * l.dilation, channels[k % channels.count], l);
                 return k < depth ? from : nullptr;
             });
             fill(to.b, step, quads_of_weight, p.weight, [&](uint32_t, uint32_t column, uint32_t k) {
                 uint32_t row = channels.first + k % channels.count, tap = k / channels.count;
                 uint32_t down = tall.tap + tap / across.taps * tall.step;
                 uint32_t right = across.tap + tap % across.taps * across.step;
                 const float* from = p.weight + uint64_t(row) * l.depth() + (down * l.s + right) * inner + first + column;
                 return first + column < inner && k < depth ? from : nullptr;
             });
         },
         [](const auto&) {});

    uint32_t column = threadIdx.x % GEMM_TILE;
    if (first + column >= inner) return;
    for (uint32_t row = threadIdx.x / GEMM_TILE; row < min(GEMM_TILE, end - pixel); row += GEMM_THREADS / GEMM_TILE) {
        const Pixel to = place(row);
        float* x = p.dx + ((to.image * l.h + to.row) * l.w + to.column) * l.c + group * inner + first + column;
        *x = p.add ? *x + tiles.out[row][column] : tiles.out[row][column];
    }
}
KERNEL(conv_data_f32);

// parts [chunk of `size` pixels, count, depth + 1] = for each chunk dz^T x of the given rows, each row followed by the
// sum of its dz.
extern "C" __global__ void __launch_bounds__(GEMM_THREADS)
conv_weight_f32(const __grid_constant__ WeightParameters p) {
    using Memory = Tiles<ByDepth, ByDepth>;
    SHARED(Memory, tiles);
    const Layer& l = p.layer;
    uint32_t inner = l.inner(), depth = l.depth(), wide = (depth + GEMM_TILE - 1) / GEMM_TILE;
    uint32_t tall = channel_tiles(p.rows, p.count, l), first = blockIdx.x % tall * GEMM_TILE;  // first row of the tile
    uint32_t group = blockIdx.x / tall % l.groups, tile = blockIdx.x / tall / l.groups;
    uint32_t start = tile % wide * GEMM_TILE;  // first column
    uint32_t chunk = tile / wide, begin = chunk * p.size, end = min(p.pixels, begin + p.size);
    const Channels channels(p.rows, p.count, group, l);
    if (first >= channels.count) return;

    bool quads = !p.rows && l.outer() % 4 == 0 && aligned(p.dz), quads_of_x = inner % 4 == 0 && aligned(p.x);
    double sum = 0.0;  // of dz, in the block with the first columns
    gemm(tiles, (end - begin + GEMM_DEPTH - 1) / GEMM_DEPTH,
         [&](auto& to, uint32_t step) {
             fill(to.a, step, quads, p.dz, [&](uint32_t, uint32_t row, uint32_t k) {
                 bool there = first + row < channels.count && begin + k < end;
                 return there ? p.dz + (begin + k) * l.o + channels[first + row] : nullptr;
             });
             fill(to.b, step, quads_of_x, p.x, [&](uint32_t, uint32_t column, uint32_t k) {
                 return field(p.x, Pixel(begin + k, end, l.oh, l.ow), Tap(start + column, inner, l), group, l);
             });
         },
         [&](const auto& stage) {
             if (start > 0 || threadIdx.x >= GEMM_TILE) return;
             for (uint32_t k = 0; k < GEMM_DEPTH; ++k) sum += stage.a.of[k][threadIdx.x];
         });

    float* part = p.parts + (uint64_t(chunk) * p.count + channels.first + first) * (depth + 1);
    uint32_t column = threadIdx.x % GEMM_TILE, rows_end = min(GEMM_TILE, channels.count - first);
    if (start == 0 && threadIdx.x < rows_end) part[uint64_t(threadIdx.x) * (depth + 1) + depth] = float(sum);
    if (start + column >= depth) return;
    for (uint32_t row = threadIdx.x / GEMM_TILE; row < rows_end; row += GEMM_THREADS / GEMM_TILE)
        part[uint64_t(row) * (depth + 1) + start + column] = tiles.out[row][column];
}
KERNEL(conv_weight_f32);
