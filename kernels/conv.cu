/*
conv.cu: y = W x + b of an affine layer: the filters of a convolution, grouped or not, or a linear layer as one of 1 x 1
(MATH.md, Eq. 7, forward). x [n, h, w, c], weight [o, r s c/groups], y [n, oh, ow, o].

An implicit matrix product: rows are output pixels, columns the output channels of one group, the depth its taps.

    for each CONV_DEPTH taps: gather what CONV_TILE pixels read of them (zeros in the padding), and the weights
                              of CONV_TILE channels; each thread adds 4 pixels x 4 channels in registers

Products are in f32, every sum in the order of the weight row.
*/
#include "common/gpu.h"
#include "tiles.h"

extern "C" __global__ void __launch_bounds__(CONV_THREADS)
conv_f32(float* y, const float* x, const float* weight, const float* bias, uint32_t pixels, uint32_t h, uint32_t w, uint32_t c, uint32_t oh, uint32_t ow, uint32_t o, uint32_t r, uint32_t s, uint32_t stride, uint32_t above, uint32_t left, uint32_t dilation, uint32_t groups, uint32_t biased) {
    constexpr uint32_t LINES = CONV_THREADS / CONV_DEPTH;  // pixels, or channels, that are loaded side by side
    static_assert(CONV_TILE == 4 * LINES && LINES == 16, "four pixels and four channels a thread");
    struct Tile { float of[CONV_DEPTH][CONV_TILE + 1]; };
    SHARED(Tile, field);
    SHARED(Tile, filter);
    uint32_t each = o / groups, inner = c / groups, depth = r * s * inner, tiles = (each + CONV_TILE - 1) / CONV_TILE;
    uint32_t channel = blockIdx.x % tiles * CONV_TILE, group = blockIdx.x / tiles % groups;
    uint32_t pixel = blockIdx.x / tiles / groups * CONV_TILE;
    uint32_t tap = threadIdx.x % CONV_DEPTH, line = threadIdx.x / CONV_DEPTH;

    uint32_t image[4], row[4], column[4];  // where the pixels' filters begin, beside the padding's offset
    for (uint32_t j = 0; j < 4; ++j) {
        uint32_t at = pixel + line + LINES * j;
        image[j] = at / ow / oh * h, row[j] = at / ow % oh * stride, column[j] = at % ow * stride;
    }
    float sum[4][4] = {};
    for (uint32_t first = 0; first < depth; first += CONV_DEPTH) {
        uint32_t k = first + tap, place = k / inner, in = group * inner + k % inner;
        uint32_t down = place / s * dilation - above, right = place % s * dilation - left;  // below 0: huge when added
        for (uint32_t j = 0; j < 4; ++j) {
            uint32_t at = line + LINES * j, i = row[j] + down, l = column[j] + right;
            bool inside = k < depth && pixel + at < pixels && i < h && l < w;
            field.of[tap][at] = inside ? x[((image[j] + i) * w + l) * c + in] : 0.0f;
            bool there = k < depth && channel + at < each;
            filter.of[tap][at] = there ? weight[(group * each + channel + at) * depth + k] : 0.0f;
        }
        __syncthreads();
        for (uint32_t d = 0; d < CONV_DEPTH; ++d) {
            float a[4], b[4];
            for (uint32_t j = 0; j < 4; ++j) a[j] = field.of[d][line + LINES * j], b[j] = filter.of[d][tap + 16 * j];
            for (uint32_t p = 0; p < 4; ++p)
                for (uint32_t q = 0; q < 4; ++q) sum[p][q] += a[p] * b[q];
        }
        __syncthreads();
    }
    for (uint32_t p = 0; p < 4; ++p)
        for (uint32_t q = 0; q < 4; ++q) {
            uint32_t at = pixel + line + LINES * p, out = channel + tap + 16 * q;
            if (at >= pixels || out >= each) continue;
            out += group * each;
            y[at * o + out] = biased ? sum[p][q] + bias[out] : sum[p][q];
        }
}
KERNEL(conv_f32);
