/*
sm90.h: instructions that only sm_90a has, as of gpu.h: mbarriers, copies by tensor maps (TMA), wgmma. For a machine of
another architecture nothing of this is compiled; a file that includes it is named *_sm90.cu and built for sm_90a alone.

Shared memory that copies by tensor maps and wgmma touch is dynamic. Both go there through the async proxy: what threads
wrote, wgmma and stores see after fence_proxy_async of those threads.
*/
#pragma once
#include "gpu.h"

PTX(struct alignas(64) TensorMap { uint64_t opaque[16]; };)

// How 16-bit values are encoded.
enum class Half { BF16, F16 };

// All `threads` threads that name barrier `id` (1 to 15) wait for each other.
DEVICE void barrier_sync(uint32_t id, uint32_t threads) {
    PTX(asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");)
    EMU(emu::barrier(id, threads, 0);)
}

// A phase of an mbarrier ends once `count` arrivals and all expected bytes have come. One thread initialises it, then
// calls fence_mbarrier_init, then all threads meet.
DEVICE void mbarrier_init(uint64_t* barrier, uint32_t count) {
    PTX(asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");)
    EMU(emu::mbarrier_init(barrier, count);)
}
DEVICE void fence_mbarrier_init() {
    PTX(asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");)
    EMU(emu::fence_mbarrier_init();)
}
DEVICE void mbarrier_arrive(uint64_t* barrier) {
    PTX(asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");)
    EMU(emu::mbarrier_arrive(barrier, 0);)
}
// Arrives, and makes the phase wait for this many bytes of copies.
DEVICE void mbarrier_expect(uint64_t* barrier, uint32_t bytes) {
    PTX(asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                     ::"r"(shared_address(barrier)), "r"(bytes) : "memory");)
    EMU(emu::mbarrier_arrive(barrier, bytes);)
}
// Waits for the end of the phase of this parity: the first phase has 0. Of a new barrier, the one before it, 1, has ended.
DEVICE void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
    PTX(uint32_t done = 0;
        while (!done)
            asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                         : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");)
    EMU(emu::mbarrier_wait(barrier, parity);)
}

DEVICE void fence_proxy_async() {
    PTX(asm volatile("fence.proxy.async.shared::cta;" ::: "memory");)
    EMU(emu::fence_proxy_async();)
}

// Copies the box of a tensor map at these coordinates (innermost first) to shared memory, zeros where it is out of bounds,
// swizzled as the map says; then counts its bytes at the barrier. One thread calls it.
DEVICE void tensor_load(void* shared, const TensorMap* map, uint64_t* barrier, int x, int y) {
    PTX(asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                     ::"r"(shared_address(shared)), "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y) : "memory");)
    EMU(int at[] = {x, y}; emu::tensor_load(shared, map, barrier, 2, at, nullptr);)
}
DEVICE void tensor_load(void* shared, const TensorMap* map, uint64_t* barrier, int x, int y, int z) {
    PTX(asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
                     ::"r"(shared_address(shared)), "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z) : "memory");)
    EMU(int at[] = {x, y, z}; emu::tensor_load(shared, map, barrier, 3, at, nullptr);)
}
DEVICE void tensor_load(void* shared, const TensorMap* map, uint64_t* barrier, int x, int y, int z, int w) {
    PTX(asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
                     ::"r"(shared_address(shared)), "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");)
    EMU(int at[] = {x, y, z, w}; emu::tensor_load(shared, map, barrier, 4, at, nullptr);)
}
// The same by a map of im2col [n, h, w, c]: the channels from c on of as many pixels as the map says, each `right` and
// `down` of a base pixel. Base pixels begin at (w, h, image) and go on along w, then h, then images, within the map's box.
DEVICE void image_load(void* shared, const TensorMap* map, uint64_t* barrier, int c, int w, int h, int image, uint32_t right, uint32_t down) {
    PTX(asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
                     "[%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};"
                     ::"r"(shared_address(shared)), "l"(map), "r"(shared_address(barrier)), "r"(c), "r"(w), "r"(h), "r"(image),
                       "h"(uint16_t(right)), "h"(uint16_t(down)) : "memory");)
    EMU(int at[] = {c, w, h, image}; unsigned offset[] = {right, down};
        emu::tensor_load(shared, map, barrier, 4, at, offset);)
}
// Copies a box back; what is out of bounds is left out. The thread commits, and waits before it exits.
DEVICE void tensor_store(const TensorMap* map, const void* shared, int x, int y) {
    PTX(asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];"
                     ::"l"(map), "r"(shared_address(shared)), "r"(x), "r"(y) : "memory");)
    EMU(int at[] = {x, y}; emu::tensor_store(map, shared, 2, at);)
}
DEVICE void bulk_commit() {
    PTX(asm volatile("cp.async.bulk.commit_group;" ::: "memory");)
    EMU(emu::bulk_commit();)
}
// Waits until at most PENDING of this thread's groups of stores are in flight.
template <int PENDING> DEVICE void bulk_wait() {
    PTX(asm volatile("cp.async.bulk.wait_group %0;" ::"n"(PENDING) : "memory");)
    EMU(emu::bulk_wait(PENDING);)
}

// Stores four matrices of 8 rows of 16 bytes: the inverse of ldmatrix.
DEVICE void stmatrix(void* row, const uint32_t (&words)[4]) {
    PTX(asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                     ::"r"(shared_address(row)), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]) : "memory");)
    EMU(emu::stmatrix(row, words);)
}

// The registers of each thread of a warpgroup from here on: a multiple of 8, fewer or more than before.
template <int COUNT> DEVICE void fewer_registers() {
    PTX(asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));)
    EMU(emu::registers(COUNT, false);)
}
template <int COUNT> DEVICE void more_registers() {
    PTX(asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));)
    EMU(emu::registers(COUNT, true);)
}

// An operand of wgmma in shared memory: rows swizzled in `swizzle` bytes (0, 32, 64, 128); `leading` and `stride` in bytes.
// Where depth is contiguous (K-major): rows of this many bytes, groups of 8 of them `stride` apart; without a swizzle, rows
// of 16 bytes, and the two halves of a depth of 16 `leading` apart. Where rows are contiguous (MN-major): this many bytes of
// rows, then the next depth; 8 depths `stride`, and the next rows `leading` apart; without a swizzle, 16 bytes of rows,
// the next rows `stride` and the next 8 depths `leading` apart.
DEVICE uint64_t operand(const void* p, uint32_t swizzle, uint32_t leading, uint32_t stride) {
    uint64_t mode = swizzle == 128 ? 1 : swizzle == 64 ? 2 : swizzle == 32 ? 3 : 0;
    return uint64_t(shared_address(p) >> 4) | uint64_t(leading >> 4) << 16 | uint64_t(stride >> 4) << 32 | mode << 62;
}
// The same operand, this many bytes further on.
DEVICE uint64_t advanced(uint64_t operand, uint32_t bytes) { return operand + (bytes >> 4); }

// Orders accesses to registers, of this thread, before the next wgmma that uses them.
DEVICE void wgmma_fence() {
    PTX(asm volatile("wgmma.fence.sync.aligned;" ::: "memory");)
    EMU(emu::wgmma_fence();)
}
DEVICE void wgmma_commit() {
    PTX(asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");)
    EMU(emu::wgmma_commit();)
}
// Waits until at most PENDING groups are in flight. The sums `d` are valid from then on; the compiler moves no access to
// them across.
template <int PENDING, int COUNT> DEVICE void wgmma_wait(float (&d)[COUNT]) {
    PTX(asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
        for (int i = 0; i < COUNT; ++i) asm volatile("" : "+f"(d[i]) :: "memory");)
    EMU(emu::wgmma_wait(PENDING); (void)d;)
}

// d = or (`adds`) += a b^T, for 64 rows of a, N of b, and a depth of 16. Both operands in shared memory, depth contiguous
// or (_MN) rows; or the fragments of a in registers. All threads of a warpgroup; d holds, for thread t, rows
// 16 (t / 32) + t % 32 / 4 + i / 2 % 2 * 8, columns i / 4 * 8 + t % 4 * 2 + i % 2.
#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define D16(i) D4(i), D4(i + 4), D4(i + 8), D4(i + 12)
#define D32(i) D16(i), D16(i + 16)
#define D64(i) D32(i), D32(i + 32)
#define D128(i) D64(i), D64(i + 64)
#define P10(t) "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, %" #t "5, %" #t "6, %" #t "7, %" #t "8, %" #t "9, "
#define P30 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " P10(1) P10(2)
#define P60 P30 P10(3) P10(4) P10(5)
#define P32 P30 "%30, %31"
#define P64 P60 "%60, %61, %62, %63"
#define P128 P60 P10(6) P10(7) P10(8) P10(9) P10(10) P10(11) "%120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA(N, TYPE, SUMS, D, A, B, ADDS, A_MN_, B_MN_)                                                               \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %" ADDS ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "."    \
                 TYPE " {" SUMS "}, %" A ", %" B ", p, 1, 1, %" A_MN_ ", %" B_MN_ ";}"                                   \
                 : D : "l"(a), "l"(b), "r"(uint32_t(adds)), "n"(A_MN), "n"(B_MN))
#define WGMMA_A(N, TYPE, SUMS, D, A0, A1, A2, A3, B, ADDS, B_MN_)                                                        \
    asm volatile("{.reg .pred p; setp.ne.b32 p, %" ADDS ", 0; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "."    \
                 TYPE " {" SUMS "}, {%" A0 ", %" A1 ", %" A2 ", %" A3 "}, %" B ", p, 1, 1, %" B_MN_ ";}"                  \
                 : D : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(uint32_t(adds)), "n"(B_MN))
template <Half KIND, int N, bool A_MN = false, bool B_MN = false> DEVICE void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool adds) {
    static_assert(N == 64 || N == 128 || N == 256, "wgmma: 64, 128 or 256 columns");
    constexpr bool F16 = KIND == Half::F16;
    PTX(if constexpr (N == 64 && F16) WGMMA(64, "f16", P32, D32(0), "32", "33", "34", "35", "36");
        else if constexpr (N == 64) WGMMA(64, "bf16", P32, D32(0), "32", "33", "34", "35", "36");
        else if constexpr (N == 128 && F16) WGMMA(128, "f16", P64, D64(0), "64", "65", "66", "67", "68");
        else if constexpr (N == 128) WGMMA(128, "bf16", P64, D64(0), "64", "65", "66", "67", "68");
        else if constexpr (F16) WGMMA(256, "f16", P128, D128(0), "128", "129", "130", "131", "132");
        else WGMMA(256, "bf16", P128, D128(0), "128", "129", "130", "131", "132");)
    EMU(emu::wgmma(d, N, nullptr, a, b, A_MN, B_MN, adds, F16 ? emu::F16 : emu::BF16, emu::read_operand);)
}
template <Half KIND, int N, bool B_MN = false> DEVICE void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool adds) {
    static_assert(N == 64, "wgmma with a in registers: 64 columns");
    constexpr bool F16 = KIND == Half::F16;
    PTX(if constexpr (F16) WGMMA_A(64, "f16", P32, D32(0), "32", "33", "34", "35", "36", "37", "38");
        else WGMMA_A(64, "bf16", P32, D32(0), "32", "33", "34", "35", "36", "37", "38");)
    EMU(emu::wgmma(d, N, a, 0, b, false, B_MN, adds, F16 ? emu::F16 : emu::BF16, emu::read_operand);)
}
#undef WGMMA
#undef WGMMA_A
