/*
perturb.cu: noisy copies of one image, out[j] = image + sigma * normal(seed, index, first + j) (MATH.md, Eq. 6).

One thread draws one Philox block: four neighbouring elements of one copy. The noise of an element depends on (seed,
index, copy, element) only, so any split into launches gives the same bits, and they are the CPU's.
*/
#include "common/philox.h"
#include "tiles.h"

extern "C" __global__ void __launch_bounds__(PERTURB_THREADS)
perturb_f32(float* out, const float* image, uint32_t copies, uint32_t len, uint64_t seed, uint32_t index, uint32_t first, float sigma) {
    uint32_t blocks = len / 4 + (len % 4 != 0);  // per copy
    uint64_t at = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    uint64_t copy = at / blocks;
    if (copy >= copies) return;
    uint32_t block = uint32_t(at % blocks);
    Words words = philox({{block, first + uint32_t(copy), index, 0}}, uint32_t(seed), uint32_t(seed >> 32));
    float normal[4];
    normal_pair(&normal[0], &normal[1], words.w[0], words.w[1]);
    normal_pair(&normal[2], &normal[3], words.w[2], words.w[3]);
    float* row = out + copy * len;
    for (uint32_t i = 0; i < 4; ++i) {
        uint32_t element = 4 * block + i;
        if (element < len) row[element] = __fadd_rn(image[element], __fmul_rn(sigma, normal[i]));
    }
}
KERNEL(perturb_f32);
