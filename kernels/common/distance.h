/*
distance.h: squared distances in f64, one correctly rounded operation at a time, and a bound in f32 that avoids most of
them: f32 searches, f64 decides.

Let x' be x rounded to f32, u = 2^-24, C a distance in the chosen columns, and a = x_i - x_j. Let e be the column's
slack: 0 where f32 holds every value exactly, else at least 2 (1 + 2^-21) max |x - x'|. With b = |x'_i - x'_j| - e (0
where that is not positive) and bound = b^2 + C, all in f32:

    |x'_i - x'_j| <= (|a| + e / (1 + 2^-21)) (1 + u),  so  b <= |a| (1 + u)^2
    bound <= (a^2 + C) (1 + u)^5 + 2^-148              (C is rounded to f32, the sum of the fma once)
    d >= (a^2 + C) (1 - 2^-53)^4 - 2^-1073             (in f64)

Hence d <= best implies bound <= limit = best (1 + 2^-20) + 2^-140, in f32: no row that is nearest or tied is skipped.
Where f32 cannot separate rows (e is larger than their distances, or infinite for values beyond f32), all are compared
in f64.
*/
#pragma once
#include "gpu.h"

DEVICE double infinite() { return __longlong_as_double(0x7ff0000000000000ll); }

DEVICE double squared(double a, double b) {
    double difference = __dsub_rn(a, b);
    return __dmul_rn(difference, difference);
}

DEVICE float bound(float own, float other, float slack, float chosen) {
    float difference = fabsf(__fsub_rn(own, other));
    float b = difference > slack ? __fsub_rn(difference, slack) : 0.0f;  // 0 where both are infinite, or NaN
    return __fmaf_rn(b, b, chosen);
}

DEVICE float limit(double best) { return float(__dadd_rn(__dmul_rn(best, 1.0 + 0x1p-20), 0x1p-140)); }
