/*
gpu.h: included by every kernel. Under nvcc it is CUDA; otherwise the same names come from emu.h.

SHARED(T, name) is an object in shared memory, SHARED_DYNAMIC(T, name) the one that the launch gives bytes for.
KERNEL(name) exports a kernel to the emulated driver. Then one function per PTX instruction, with its CUDA and its
emulated form side by side. Instructions of a whole warp are called by all its lanes.
*/
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define SHARED(T, name) __shared__ T name
extern __shared__ __align__(1024) unsigned char dynamic_shared[];
#define SHARED_DYNAMIC(T, name) T& name = *reinterpret_cast<T*>(dynamic_shared)
#define KERNEL(name) static_assert(true, "")
#define PTX(...) __VA_ARGS__
#define EMU(...)
#define UNROLL _Pragma("unroll")  // before a loop whose index selects registers
#define UNROLL_4 _Pragma("unroll 4")  // before one that would take too many
#else
#include "../emu/emu.h"
#define PTX(...)
#define EMU(...) __VA_ARGS__
#define UNROLL
#define UNROLL_4
#endif

#define DEVICE __device__ __forceinline__

DEVICE uint32_t shared_address(const void* p) {
    PTX(return uint32_t(__cvta_generic_to_shared(p));)
    EMU(return emu::shared_offset(p);)
}

// Copies BYTES (4 or 16, both addresses aligned to BYTES) from global to shared memory asynchronously; writes zeros
// where not ok.
template <int BYTES> DEVICE void copy_async(void* shared, const void* global, bool ok) {
    static_assert(BYTES == 4 || BYTES == 16, "copy_async: 4 or 16 bytes");
    PTX(if constexpr (BYTES == 16)
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                         ::"r"(shared_address(shared)), "l"(global), "r"(ok ? 16 : 0) : "memory");
        else
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                         ::"r"(shared_address(shared)), "l"(global), "r"(ok ? 4 : 0) : "memory");)
    EMU(emu::copy_async(shared, ok ? global : nullptr, BYTES);)
}
// Makes the copies since the last commit one group.
DEVICE void copy_commit() {
    PTX(asm volatile("cp.async.commit_group;" ::: "memory");)
    EMU(emu::copy_commit();)
}
// Waits until at most PENDING of this thread's groups are in flight.
template <int PENDING> DEVICE void copy_wait() {
    PTX(asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");)
    EMU(emu::copy_wait(PENDING);)
}

// Loads four matrices of 8 rows of 16 bytes. Lane l gives the address of row l % 8 of matrix l / 8, and receives bytes
// 4(l % 4).. of row l / 4 of each; with TRANSPOSE, of the transposed matrix of 16-bit elements.
template <bool TRANSPOSE = false> DEVICE void ldmatrix(uint32_t (&out)[4], const void* row) {
    PTX(uint32_t from = shared_address(row);
        if constexpr (TRANSPOSE)
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(from) : "memory");
        else
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(from) : "memory");)
    EMU(emu::ldmatrix(out, row, TRANSPOSE);)
}

// x rounded to the 10 mantissa bits of tf32, ties away from zero, as the bits of a float.
DEVICE uint32_t tf32(float x) {
    PTX(uint32_t bits; asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x)); return bits;)
    EMU(return emu::tf32(x);)
}

// Two values rounded to 16 bits each, ties to even, the first in the low half. The largest f16 is 65504; larger values
// become infinite.
DEVICE uint32_t bf16x2(float low, float high) {
    PTX(uint32_t bits; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low)); return bits;)
    EMU(return emu::bf16(low) | emu::bf16(high) << 16;)
}
DEVICE uint32_t f16x2(float low, float high) {
    PTX(uint32_t bits; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low)); return bits;)
    EMU(return emu::f16(low) | emu::f16(high) << 16;)
}

// The value of f16 with these bits.
DEVICE float f16_value(uint16_t bits) {
    PTX(float x; asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits)); return x;)
    EMU(return float(emu::half(bits));)
}

// 1 / x and 2^x, off by two units in the last place or so; what is below 2^-126 is zero.
DEVICE float reciprocal(float x) {
    PTX(float y; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y;)
    EMU(return 1.0f / x;)
}
DEVICE float power_of_two(float x) {
    PTX(float y; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)); return y;)
    EMU(return exp2f(x);)
}

// d += a b, tf32. With g = lane / 4, t = lane % 4: d is (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1) of [16, 8]; a is
// (g, t), (g+8, t), (g, t+4), (g+8, t+4) of [16, 8]; b is (t, g), (t+4, g) of [8, 8].
DEVICE void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    PTX(asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));)
    EMU(uint32_t b[2] = {b0, b1}; emu::mma(d, a, b, emu::TF32);)
}
// The same with k = 16 in bf16: every word holds two neighbours in k, the lower one in the low half.
DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    PTX(asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));)
    EMU(uint32_t b[2] = {b0, b1}; emu::mma(d, a, b, emu::BF16);)
}
// The same in f16.
DEVICE void mma_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    PTX(asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));)
    EMU(uint32_t b[2] = {b0, b1}; emu::mma(d, a, b, emu::F16);)
}
