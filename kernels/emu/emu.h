/*
emu.h: lets a C++ compiler compile a kernel for the host, and runs it there.

A CUDA thread is a fiber. The fibers of one block share one OS thread and switch only where the kernel synchronises.
Blocks run on several OS threads. All accesses to a kernel's memory but its mbarriers are in this header and sm90.h, so that
sanitizers see them. The *.cc files are never instrumented: the scheduler and the exchange of registers between lanes
(emu.cc), mbarriers and the copy engine (sm90.cc), tensor cores (tensor.cc).

It is stricter than a GPU on purpose: a thread that exits before a barrier of its block, or waits at the barrier of
another line, is an error. It models memory ordering at barriers and at the fences of the async proxy alone, and registers
only as setmaxnreg counts them; speed and bank conflicts not at all. It counts the multiplications of mma and wgmma.
*/
#pragma once
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

// The language.
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __constant__ static const
#define __align__(n) alignas(n)

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {} };
#define EMU_VEC(T, N)                                                                              \
    struct alignas(2 * sizeof(T)) N##2 { T x, y; };                                                \
    struct alignas(4 * sizeof(T)) N##4 { T x, y, z, w; };                                          \
    inline N##2 make_##N##2(T x, T y) { return {x, y}; }                                           \
    inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VEC(float, float)
EMU_VEC(unsigned, uint)

template <class To, class From> inline To emu_bits(From f) { static_assert(sizeof(To) == sizeof(From)); To t; memcpy(&t, &f, sizeof t); return t; }
// Execution.
namespace emu {
struct Copies {  // the cp.async of one thread that are not done yet
    struct { void *dst; const void *src; int bytes, group; } list[256];
    int count, committed;
};
struct Thread { uint3 tid; unsigned rank; Copies copies; };  // the part of a fiber that a kernel reads
extern __thread Thread *self;                 // the fiber that runs on this OS thread
extern __thread struct Dims { dim3 grid, block; uint3 bid; } *dims;
void barrier(int line);
void barrier(unsigned id, unsigned threads, int line);
void syncwarp(unsigned mask);
uint64_t shuffle(unsigned mask, uint64_t v, int from);  // from < 0: its own value
unsigned ballot(unsigned mask, bool p);
void ldmatrix(uint32_t *out, const uint16_t (&row)[8], bool transpose);
enum Operand { TF32, BF16, F16 };
void mma(float *d, const uint32_t *a, const uint32_t *b, Operand kind);
bool coin();  // whether an asynchronous copy is done at once
void *shared(const void *key, size_t bytes);  // an object in shared memory of this block
void *dynamic_shared(size_t bytes);            // what the launch gave, at least this many bytes
[[noreturn]] void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

using Entry = void (*)(void **params);
const char *launch(Entry, const uint32_t grid[3], const uint32_t block[3], uint32_t shared, void **params, uint64_t seed);
template <auto F> struct Call;
template <class... A, void (*F)(A...)> struct Call<F> {
    template <class T> static T argument(const void *p) { T value; memcpy(static_cast<void *>(&value), p, sizeof value); return value; }  // p has no alignment
    template <size_t... I> static void go(void **p, std::index_sequence<I...>) { F(argument<std::remove_cv_t<A>>(p[I])...); }
    static void run(void **p) { go(p, std::index_sequence_for<A...>{}); }
};
}  // namespace emu

#define threadIdx (emu::self->tid)
#define blockIdx (emu::dims->bid)
#define blockDim (emu::dims->block)
#define gridDim (emu::dims->grid)
constexpr int warpSize = 32;

// An object of type T in shared memory, filled with 0xff bytes (NaN) when a block starts.
#define SHARED(T, name) T &name = *static_cast<T *>(emu::shared([] { static char k; return &k; }(), sizeof(T)))
// The dynamic shared memory of the launch, as an object of type T. It begins the same, on 1024 bytes.
#define SHARED_DYNAMIC(T, name) T &name = *static_cast<T *>(emu::dynamic_shared(sizeof(T)))
// Exports a kernel: Rust calls emu_<name> with the arguments of cuLaunchKernel.
#define KERNEL(name)                                                                               \
    extern "C" const char *emu_##name(const uint32_t *grid, const uint32_t *block, uint32_t shared, \
                                      void **params, uint64_t seed) {                              \
        return emu::launch(emu::Call<&name>::run, grid, block, shared, params, seed);              \
    }

inline void __syncthreads(int line = __builtin_LINE()) { emu::barrier(line); }
inline void __syncwarp(unsigned mask = ~0u) { emu::syncwarp(mask); }

// Exchange within a warp.
template <class T> inline T emu_shuffle(unsigned mask, T v, int from) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
    uint64_t u = 0;
    memcpy(&u, &v, sizeof v);
    u = emu::shuffle(mask, u, from);
    memcpy(&v, &u, sizeof v);
    return v;
}
inline int emu_lane() { return emu::self->rank & 31; }
template <class T> inline T __shfl_sync(unsigned m, T v, int src, int w = 32) { return emu_shuffle(m, v, (emu_lane() & ~(w - 1)) | (src & (w - 1))); }
template <class T> inline T __shfl_xor_sync(unsigned m, T v, int x, int w = 32) { int l = emu_lane(), s = l ^ x; return emu_shuffle(m, v, s / w > l / w ? -1 : s); }
template <class T> inline T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32) { int l = emu_lane(), s = l + int(d); return emu_shuffle(m, v, s / w == l / w ? s : -1); }
template <class T> inline T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32) { int l = emu_lane(), s = l - int(d); return emu_shuffle(m, v, s >= (l & ~(w - 1)) ? s : -1); }
inline unsigned __ballot_sync(unsigned m, int p) { return emu::ballot(m, p); }
inline int __any_sync(unsigned m, int p) { return emu::ballot(m, p) != 0; }
inline int __all_sync(unsigned m, int p) { return emu::ballot(m, p) == m; }

// Atomics: relaxed, as in CUDA. They are real ones, because blocks run on several OS threads.
template <class T, class F> inline T emu_rmw(T *p, F f) {
    T old, upd;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do upd = f(old);
    while (!__atomic_compare_exchange(p, &old, &upd, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}
template <class T> using emu_same = std::common_type_t<T>;  // so that the second argument converts
template <class T> inline T atomicAdd(T *p, emu_same<T> v) { return emu_rmw(p, [=](T o) { return T(o + v); }); }
template <class T> inline T atomicMin(T *p, emu_same<T> v) { return emu_rmw(p, [=](T o) { return v < o ? v : o; }); }
template <class T> inline T atomicMax(T *p, emu_same<T> v) { return emu_rmw(p, [=](T o) { return o < v ? v : o; }); }
template <class T> inline T atomicOr(T *p, emu_same<T> v) { return emu_rmw(p, [=](T o) { return T(o | v); }); }
template <class T> inline T atomicExch(T *p, emu_same<T> v) { return emu_rmw(p, [=](T) { return v; }); }
template <class T> inline T atomicCAS(T *p, emu_same<T> cmp, emu_same<T> v) { return emu_rmw(p, [=](T o) { return o == cmp ? v : o; }); }

// Arithmetic: one correctly rounded operation each; the compiler flags forbid contraction.
template <class T> inline T min(T a, emu_same<T> b) { return b < a ? b : a; }
template <class T> inline T max(T a, emu_same<T> b) { return a < b ? b : a; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }
inline unsigned __float_as_uint(float f) { return emu_bits<unsigned>(f); }
inline float __uint_as_float(unsigned u) { return emu_bits<float>(u); }
inline double __longlong_as_double(long long i) { return emu_bits<double>(i); }
inline long long __double_as_longlong(double d) { return emu_bits<long long>(d); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }

// PTX. A cp.async is done at once or by the wait that makes it due; the seed decides.
namespace emu {
inline void copy_now(void *dst, const void *src, int bytes) { if (src) memcpy(dst, src, bytes); else memset(dst, 0, bytes); }
inline void copy_async(void *dst, const void *src, int bytes) {
    Copies &c = self->copies;
    if ((uintptr_t(dst) | uintptr_t(src)) % bytes) fail("cp.async: unaligned address");
    if (coin()) copy_now(dst, src, bytes);
    else if (c.count == 256) fail("cp.async: more than 256 without a wait");
    else c.list[c.count++] = {dst, src, bytes, c.committed};
}
inline void copy_commit() { ++self->copies.committed; }
inline void copy_wait(int pending) {
    Copies &c = self->copies;
    int kept = 0;
    for (int i = 0; i < c.count; ++i)
        if (c.list[i].group < c.committed - pending) copy_now(c.list[i].dst, c.list[i].src, c.list[i].bytes);
        else c.list[kept++] = c.list[i];
    c.count = kept;
}

inline uint32_t tf32(float x) {
    uint32_t bits = emu_bits<uint32_t>(x);
    return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & ~0x1fffu;
}

inline uint32_t bf16(float x) {
    uint32_t bits = emu_bits<uint32_t>(x);
    return x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline uint32_t f16(float x) {  // rounds by one addition whose unit in the last place is that of f16
    uint32_t sign = emu_bits<uint32_t>(x) >> 16 & 0x8000;
    float size = fabsf(x);
    if (x != x) return 0x7fff;
    if (size >= 65520.0f) return sign | 0x7c00;
    if (size < 0x1p-14f) return sign | (emu_bits<uint32_t>(size + 0.5f) - emu_bits<uint32_t>(0.5f));
    uint32_t bits = emu_bits<uint32_t>(size);
    return sign | (((bits + 0xfff + (bits >> 13 & 1)) >> 13) - (112 << 10));
}
inline double half(uint32_t bits) {
    int exponent = int(bits >> 10 & 31), mantissa = int(bits & 1023);
    double size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                  : exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return bits & 0x8000 ? -size : size;
}

inline void ldmatrix(uint32_t *out, const void *row, bool transpose) {
    uint16_t halves[8];
    if (uintptr_t(row) % 16) fail("ldmatrix: unaligned row");
    memcpy(halves, row, 16);
    ldmatrix(out, halves, transpose);
}
}  // namespace emu

#include "sm90.h"
