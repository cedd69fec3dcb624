/*
philox.h: Philox4x32-10 (Salmon et al., SC 2011) and normals from its words, bit for bit as src/ops/philox.rs.

Every floating-point operation is an explicit, correctly rounded instruction, which no compiler contracts or reorders.
*/
#pragma once
#include "gpu.h"

constexpr uint32_t PHILOX_TIES = 4;          // Use::Ties
constexpr uint32_t PHILOX_LABELS = 7u << 28;  // Use::Labels, at its position in the counter

struct Words {
    uint32_t w[4];
};

DEVICE Words philox(Words counter, uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        uint32_t a = counter.w[0], b = counter.w[2];
        counter = {{__umulhi(0xcd9e8d57u, b) ^ counter.w[1] ^ key0, 0xcd9e8d57u * b,
                    __umulhi(0xd2511f53u, a) ^ counter.w[3] ^ key1, 0xd2511f53u * a}};
        key0 += 0x9e3779b9u, key1 += 0xbb67ae85u;
    }
    return counter;
}

// ln(x) for x in (0, 1], from x = m 2^e with m in [sqrt(1/2), sqrt(2)) by a polynomial.
DEVICE float philox_ln(float x) {
    const float p[8] = {0.3333333f, -0.25000823f, 0.20001227f, -0.16623355f, 0.1420176f, -0.13160205f, 0.12761569f, -0.07634423f};
    uint32_t bits = __float_as_uint(x) - 0x3f3504f3u;
    float exponent = float(int32_t(bits) >> 23);
    float f = __fsub_rn(__uint_as_float((bits & 0x007fffffu) + 0x3f3504f3u), 1.0f);
    float sum = p[7];
    for (int i = 6; i >= 0; --i) sum = __fmaf_rn(sum, f, p[i]);
    float square = __fmul_rn(f, f);
    float tail = __fmaf_rn(__fmul_rn(f, square), sum, __fmul_rn(-0.5f, square));
    return __fmaf_rn(exponent, 0.693147180559945f, __fadd_rn(f, tail));
}

// Two independent standard normals from two words (Box and Muller).
DEVICE void normal_pair(float* first, float* second, uint32_t a, uint32_t b) {
    const float ps[5] = {6.2831855f, -41.3417f, 81.6052f, -76.69787f, 41.47294f};
    const float pc[5] = {1.0f, -19.739208f, 64.939316f, -85.44285f, 59.220394f};
    float u = __fmul_rn(__fadd_rn(float(a >> 8), 0.5f), 1.0f / 16777216.0f);
    float radius = __fsqrt_rn(__fmul_rn(-2.0f, philox_ln(u)));
    float t = __fsub_rn(__fmul_rn(float((b & 0x3fffff00u) >> 8), 0.25f / 4194304.0f), 0.125f);
    float square = __fmul_rn(t, t), sine = ps[4], cosine = pc[4];
    for (int i = 3; i >= 0; --i) {
        sine = __fmaf_rn(sine, square, ps[i]);
        cosine = __fmaf_rn(cosine, square, pc[i]);
    }
    sine = __fmul_rn(t, sine);
    if (b & 0x40000000u) {  // a quarter turn
        float s = sine;
        sine = cosine, cosine = -s;
    }
    if (b & 0x80000000u) sine = -sine, cosine = -cosine;
    *first = __fmul_rn(radius, cosine);
    *second = __fmul_rn(radius, sine);
}
