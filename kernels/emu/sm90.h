/*
sm90.h: the emulated side of common/sm90.h: mbarriers, bulk copies by tensor maps (TMA), wgmma. Included by emu.h.

A copy engine serves bulk copies: at once (seed 0), as late as a wait allows (seed 1), or in random order. A wgmma reads
its operands when it is issued, or as late as the wait allows; until the wait, its registers hold NaN.

What is an error: an mbarrier before its init, more arrivals than its count, an init that the copy engine cannot see; a
read by the async proxy (wgmma, TMA store) of bytes that threads wrote without fence.proxy.async; wgmma without
wgmma.fence where registers changed hands; a thread or block that ends with work in flight. A bulk store reads and
writes at one moment: the two kinds of wait_group are one here. A wgmma lets no warp run ahead of its warpgroup, so that
only the thread sanitizer sees a barrier that is missing between them.
*/
#pragma once

// A tensor map. Its bytes are those of NVIDIA's driver, or of this struct.
struct alignas(64) TensorMap { uint64_t opaque[16]; };

namespace emu {
constexpr unsigned ELEMENT = 2;  // bytes of what tensor maps are of
struct Map {  // dimensions from the innermost one
    char *base;
    uint64_t pitch[3];  // bytes from one element of dimension 1.. to the next
    uint32_t dim[4];
    uint16_t box[4];  // im2col: channels, pixels
    int16_t lower[2], upper[2];  // im2col: corners of the box of base pixels, in w and h
    uint8_t step[2];             // im2col: distance of base pixels
    uint8_t rank, swizzle, im2col;
};
static_assert(sizeof(Map) <= sizeof(TensorMap));

struct Bulk {
    void (*run)(const Bulk &);
    void *shared;
    uint64_t *barrier;  // of a load
    int at[4];
    unsigned offset[2], bytes, owner;
    int group;  // of a store
    Map map;
};
void bulk(const Bulk &);
void bulk_commit(), bulk_wait(int pending);
void mbarrier_init(uint64_t *, unsigned count), mbarrier_arrive(uint64_t *, unsigned expected), mbarrier_wait(uint64_t *, unsigned parity);
void fence_mbarrier_init(), fence_proxy_async();
void registers(unsigned count, bool more);
uint32_t shared_offset(const void *);
char *shared_pointer(uint32_t offset);
// The async proxy writes, or reads, these bytes of shared memory.
void async_wrote(const void *, unsigned bytes), async_reads(const void *, unsigned bytes, const char *what);
using ReadOperand = void (*)(uint64_t descriptor, int rows, bool mn, uint16_t *out);
void wgmma(float *d, int n, const uint32_t *a_registers, uint64_t a, uint64_t b, bool a_mn, bool b_mn, bool adds, Operand, ReadOperand);
void wgmma_fence(), wgmma_commit(), wgmma_wait(int pending);

// Rows of `width` bytes (32, 64, 128; 0: none) are swizzled in groups of 16: their number is xored with bits 7.. of the
// address.
inline uint32_t swizzled(uint32_t offset, unsigned width) { return width ? offset ^ (offset >> 7 & (width / 16 - 1)) << 4 : offset; }

// Calls each(shared, global) for every element of a box, global null where it is out of bounds.
template <class Each> void each_element(const Bulk &job, Each each) {
    const Map &m = job.map;
    uint32_t to = shared_offset(job.shared), inner = m.box[0];
    auto visit = [&](uint32_t row, const int64_t *at) {  // a row of `inner` elements, from at[0]
        for (uint32_t c = 0; c < inner; ++c) {
            int64_t x = at[0] + c, offset = x * ELEMENT;
            bool inside = x >= 0 && x < m.dim[0];
            for (int i = 1; i < m.rank; ++i) inside = inside && at[i] >= 0 && at[i] < m.dim[i], offset += at[i] * int64_t(m.pitch[i - 1]);
            each(shared_pointer(swizzled(to + (row * inner + c) * ELEMENT, m.swizzle)), inside ? m.base + offset : nullptr);
        }
    };
    if (m.im2col) {  // base pixels from `at`, along w, then h, then images, each read at an offset
        int64_t w = job.at[1], h = job.at[2], image = job.at[3];
        for (uint32_t pixel = 0; pixel < m.box[1]; ++pixel) {
            int64_t at[4] = {job.at[0], w + job.offset[0], h + job.offset[1], image};
            visit(pixel, at);
            if ((w += m.step[0]) < int64_t(m.dim[1]) + m.upper[0]) continue;
            w = m.lower[0];
            if ((h += m.step[1]) < int64_t(m.dim[2]) + m.upper[1]) continue;
            h = m.lower[1], ++image;
        }
        return;
    }
    uint32_t rows = 1;
    for (int i = 1; i < m.rank; ++i) rows *= m.box[i];
    for (uint32_t row = 0; row < rows; ++row) {
        int64_t at[4] = {job.at[0], 0, 0, 0};
        uint32_t rest = row;
        for (int i = 1; i < m.rank; ++i) at[i] = job.at[i] + int64_t(rest % m.box[i]), rest /= m.box[i];
        visit(row, at);
    }
}
inline void load_box(const Bulk &job) {
    each_element(job, [&](char *shared, const char *global) {
        if (global) memcpy(shared, global, ELEMENT);
        else memset(shared, 0, ELEMENT);
        async_wrote(shared, ELEMENT);
    });
}
inline void store_box(const Bulk &job) {
    each_element(job, [&](char *shared, char *global) {
        async_reads(shared, ELEMENT, "a bulk store");
        if (global) memcpy(global, shared, ELEMENT);
    });
}
inline Bulk tensor_copy(const TensorMap *map, void *shared) {
    Bulk job{};
    memcpy(&job.map, map, sizeof job.map);
    job.shared = shared;
    unsigned elements = job.map.im2col ? job.map.box[1] : 1;
    for (int i = 0; i < job.map.rank; ++i) if (!job.map.im2col || i == 0) elements *= job.map.box[i];
    job.bytes = elements * ELEMENT;
    if (shared_offset(shared) % 128) fail("TMA: shared memory that is not aligned to 128 bytes");
    return job;
}
inline void tensor_load(void *shared, const TensorMap *map, uint64_t *barrier, int rank, const int *at, const unsigned *offset) {
    Bulk job = tensor_copy(map, shared);
    if (job.map.rank != rank || bool(job.map.im2col) != bool(offset)) fail("TMA: a tensor map of another kind");
    for (int i = 0; i < rank; ++i) job.at[i] = at[i];
    if (offset) job.offset[0] = offset[0], job.offset[1] = offset[1];
    job.run = load_box, job.barrier = barrier;
    bulk(job);
}
inline void tensor_store(const TensorMap *map, const void *shared, int rank, const int *at) {
    Bulk job = tensor_copy(map, const_cast<void *>(shared));
    if (job.map.rank != rank || job.map.im2col) fail("TMA: a tensor map of another kind");
    for (int i = 0; i < rank; ++i) job.at[i] = at[i];
    job.run = store_box;
    bulk(job);
}

// out [rows, 16] of an operand of wgmma whose depth (or, mn, whose rows) are contiguous. Descriptor: start, leading and
// stride offset in units of 16 bytes at bits 0, 16, 32; swizzle at bit 62 (1: 128 bytes, 2: 64, 3: 32).
inline void read_operand(uint64_t descriptor, int rows, bool mn, uint16_t *out) {
    auto field = [&](int bit) { return uint32_t(descriptor >> bit & 0x3fff) << 4; };
    uint32_t start = field(0), leading = field(16), stride = field(32);
    unsigned mode = unsigned(descriptor >> 62), width = mode ? 256u >> mode : 0, of_row = width ? width : 16, wide = of_row / 16;
    auto sixteen = [&](uint32_t offset) {
        const char *at = shared_pointer(swizzled(offset, width));
        async_reads(at, 16, "wgmma");
        return at;
    };
    if (!mn)
        for (int row = 0; row < rows; ++row)
            for (int k = 0; k < 16; k += 8)
                memcpy(out + row * 16 + k, sixteen(start + row / 8 * stride + row % 8 * of_row + (width ? k * 2 : k / 8 * leading)), 16);
    else
        for (int chunk = 0; chunk < rows / 8; ++chunk)
            for (int k = 0; k < 16; ++k) {
                uint32_t across = width ? chunk / wide * leading + chunk % wide * 16 : chunk * stride;
                uint16_t halves[8];
                memcpy(halves, sixteen(start + across + k / 8 * (width ? stride : leading) + k % 8 * of_row), 16);
                for (int i = 0; i < 8; ++i) out[(chunk * 8 + i) * 16 + k] = halves[i];
            }
}

// Lane l gives the address of row l % 8 of matrix l / 8 and the words of its own fragment; the rows are written.
void stmatrix(uint16_t (&row)[8], const uint32_t *words);
inline void stmatrix(void *row, const uint32_t *words) {
    uint16_t halves[8];
    if (uintptr_t(row) % 16) fail("stmatrix: unaligned row");
    stmatrix(halves, words);
    memcpy(row, halves, 16);
}
}  // namespace emu
