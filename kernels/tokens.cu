/*
tokens.cu: copies of a sequence in which some tokens are replaced at random (perturbation of text).

A copy is the whole row of words (token ids, then the mask); of its `slots`, the positions that may change, `count` distinct
ones get another id of from .. from + ids - 1, all equally likely. Which ones is Floyd's algorithm: for j = places - count + k,
k = 0, 1, ..: a random slot of 0 .. j, or slot j where that one is taken; it is taken where its id has changed, as a new id
always differs. Draw k has the four words of block k of (seed, index, copy): two choose the slot, two the id, each as
floor(word * n / 2^64), so the ids are the CPU's. One warp owns one copy: it copies the row, then its first lane replaces.
*/
#include "common/philox.h"
#include "common/warp.h"
#include "tiles.h"

// A number below n from two words.
DEVICE uint32_t below(uint32_t high, uint32_t low, uint32_t n) {
    return uint32_t((uint64_t(high) * n + (uint64_t(low) * n >> 32)) >> 32);
}

extern "C" __global__ void __launch_bounds__(TOKENS_THREADS)
replace_tokens_u32(uint32_t* out, const uint32_t* row, const uint32_t* slots, uint32_t copies, uint32_t len, uint32_t places, uint32_t count, uint32_t from, uint32_t ids, uint64_t seed, uint32_t index, uint32_t first) {
    uint32_t copy = warp(TOKENS_THREADS);
    if (copy >= copies) return;
    out += uint64_t(copy) * len;
    for (uint32_t i = lane(); i < len; i += 32) out[i] = row[i];
    __syncwarp();
    if (lane() > 0) return;
    for (uint32_t k = 0; k < count; ++k) {
        Words words = philox({{k, first + copy, index, 0}}, uint32_t(seed), uint32_t(seed >> 32));
        uint32_t last = places - count + k, slot = slots[below(words.w[0], words.w[1], last + 1)];
        if (slot >= len) return;  // no slot of this row
        if (out[slot] != row[slot]) slot = slots[last];
        if (slot >= len) return;
        uint32_t old = row[slot] - from;  // wraps below `from`
        uint32_t id = below(words.w[2], words.w[3], old < ids ? ids - 1 : ids);
        out[slot] = from + id + (old < ids && id >= old);
    }
}
KERNEL(replace_tokens_u32);
