/*
element.h: the types of values in memory, float and two of 16 bits, and how kernels read and write them. load(p) is the
value as a float, exactly; store(p, x) rounds x to the type once, to nearest and ties to even. All arithmetic is on floats.
The types differ, so that a value that is read as another type does not compile.

    bf16   8 bits of exponent, 7 of mantissa
    f16    5 bits of exponent, 10 of mantissa, up to 65504; larger values become infinite
*/
#pragma once
#include "gpu.h"

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

DEVICE float load(const float* p) { return *p; }
DEVICE float load(const bf16* p) { return __uint_as_float(uint32_t(p->bits) << 16); }
DEVICE float load(const f16* p) { return f16_value(p->bits); }
DEVICE void store(float* p, float x) { *p = x; }
DEVICE void store(bf16* p, float x) { p->bits = uint16_t(bf16x2(x, 0.0f)); }
DEVICE void store(f16* p, float x) { p->bits = uint16_t(f16x2(x, 0.0f)); }

// Whether x, rounded to the type, is a number: what is 65520 or more, halfway to the next f16 if there were one, becomes
// infinite. Of the other types, what is not finite was so before.
template <class T> DEVICE bool fits(float) { return true; }
template <> DEVICE bool fits<f16>(float x) { return fabsf(x) < 65520.0f; }
// Notes at `flag`, unless that is null, that something did not fit.
DEVICE void note(uint32_t* flag, bool fit) {
    if (!fit && flag) atomicOr(flag, 1u);
}

// Two values rounded to 16 bits, the first in the low half.
template <class T> DEVICE uint32_t pair(float low, float high);
template <> DEVICE uint32_t pair<bf16>(float low, float high) { return bf16x2(low, high); }
template <> DEVICE uint32_t pair<f16>(float low, float high) { return f16x2(low, high); }

// 16 bytes of values, which begin on 16 bytes: 4 floats, or 8 of 16 bits.
template <class T> struct alignas(16) Line {
    static constexpr uint32_t COUNT = 16 / sizeof(T);
    T of[COUNT];

    DEVICE float operator[](uint32_t i) const { return load(&of[i]); }
    DEVICE void set(const float (&x)[COUNT]) {
        if constexpr (COUNT == 4) {
            for (uint32_t i = 0; i < 4; ++i) of[i] = x[i];
        } else {
            for (uint32_t i = 0; i < 8; i += 2) {
                uint32_t two = pair<T>(x[i], x[i + 1]);
                of[i].bits = uint16_t(two), of[i + 1].bits = uint16_t(two >> 16);
            }
        }
    }
};
template <class T> DEVICE Line<T> line_at(const T* p) { return *reinterpret_cast<const Line<T>*>(p); }
