/*
moments.cu: the second moments that K-FAC needs of an affine layer (MATH.md, Eq. 11b): of the inputs that its taps read,
followed by a 1 for the bias, for some groups; and of dz at some output channels, within their groups. Output pixels are
split into chunks, which are added up in order.

Matrix products of common/gemm.h, with both operands gathered from the same values and pixels as the depth. The result
is symmetric: only tiles on and below the diagonal have a block, and each writes its result to both sides.
*/
#include "common/affine.h"
#include "common/gemm.h"

// The tile with this number, among those on and below the diagonal, row by row.
struct LowerTile {
    uint32_t row, column;

    DEVICE LowerTile(uint32_t at) : row(0), column(at) {
        while (column > row) column -= ++row;
    }
};

// part [count, stride] = sum of v v^T over pixels begin .. end in its first `count` columns, and zeros in the others;
// `stride` is that of rows. from(i, pixel) points to v_i, i < count. With `wide`, four consecutive i are consecutive
// in memory.
template <class From>
DEVICE void moment(float* part, uint32_t count, uint32_t stride, LowerTile tile, uint32_t begin, uint32_t end, bool wide, const float* any, From from) {
    using Memory = Tiles<ByDepth, ByDepth>;
    SHARED(Memory, tiles);
    gemm(tiles, (end - begin + GEMM_DEPTH - 1) / GEMM_DEPTH,
         [&](auto& to, uint32_t step) {
             auto value = [&](uint32_t i, uint32_t k) {
                 return i < count && begin + k < end ? from(i, begin + k) : nullptr;
             };
             fill(to.a, step, wide, any, [&](uint32_t, uint32_t i, uint32_t k) { return value(tile.row * GEMM_TILE + i, k); });
             fill(to.b, step, wide, any, [&](uint32_t, uint32_t i, uint32_t k) { return value(tile.column * GEMM_TILE + i, k); });
         },
         [](const auto&) {});

    uint32_t column = threadIdx.x % GEMM_TILE, right = tile.column * GEMM_TILE + column;
    for (uint32_t line = threadIdx.x / GEMM_TILE; line < GEMM_TILE; line += GEMM_THREADS / GEMM_TILE) {
        uint32_t down = tile.row * GEMM_TILE + line;
        if (down < right || down >= stride || right >= count) continue;
        if (down < count) part[uint64_t(down) * stride + right] = tiles.out[line][column];
        part[uint64_t(right) * stride + down] = tiles.out[line][column];
    }
}

// parts [chunk of `size` pixels, count, width, width] = for each chunk the moment of the values that the taps of each
// given group read, and of the 1 after them where `width` includes it; `one` is 1, 0, 0, 0.
extern "C" __global__ void __launch_bounds__(GEMM_THREADS)
input_moment_f32(float* parts, const float* x, const float* one, const uint32_t* sets, uint32_t count, uint32_t pixels, const __grid_constant__ Layer l, uint32_t width, uint32_t size) {
    uint32_t side = (width + GEMM_TILE - 1) / GEMM_TILE, pairs = side * (side + 1) / 2, rest = blockIdx.x / pairs;
    uint32_t set = rest % count, chunk = rest / count, begin = chunk * size, end = min(pixels, begin + size);
    uint32_t group = min(sets[set], l.groups - 1), inner = l.inner(), depth = l.depth();
    float* part = parts + (uint64_t(chunk) * count + set) * width * width;
    bool wide = inner % 4 == 0 && aligned(x) && aligned(one);
    moment(part, width, width, LowerTile(blockIdx.x % pairs), begin, end, wide, x, [&](uint32_t i, uint32_t pixel) {
        return i < depth ? field(x, Pixel(pixel, end, l.oh, l.ow), Tap(i, inner, l), group, l) : one;
    });
}
KERNEL(input_moment_f32);

// parts [chunk of `size` pixels, count, stride] = for each chunk the moment of dz [pixels, o] at the given rows, each
// row with the rows of its group, at most `stride` of them; zeros where a group has fewer. Null `rows`: all output
// channels.
extern "C" __global__ void __launch_bounds__(GEMM_THREADS)
output_moment_f32(float* parts, const float* dz, const uint32_t* rows, uint32_t count, uint32_t pixels, uint32_t o, uint32_t groups, uint32_t stride, uint32_t size) {
    const Layer l{1, 1, groups, 1, 1, o, 1, 1, 1, 0, 0, 1, groups};
    uint32_t side = (stride + GEMM_TILE - 1) / GEMM_TILE, pairs = side * (side + 1) / 2, rest = blockIdx.x / pairs;
    uint32_t group = rest % groups, chunk = rest / groups, begin = chunk * size, end = min(pixels, begin + size);
    const Channels channels(rows, count, group, l);
    if (channels.count == 0) return;
    float* part = parts + (uint64_t(chunk) * count + channels.first) * stride;
    bool wide = !rows && l.outer() % 4 == 0 && aligned(dz);
    moment(part, min(channels.count, stride), stride, LowerTile(blockIdx.x % pairs), begin, end, wide, dz, [&](uint32_t i, uint32_t pixel) {
        return dz + pixel * o + channels[i];
    });
}
KERNEL(output_moment_f32);
