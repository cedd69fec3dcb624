/*
ascending.h: binary search in an ascending list.
*/
#pragma once
#include "gpu.h"

// The number of list elements below the value.
DEVICE uint32_t below(const uint32_t* list, uint32_t count, uint32_t value) {
    uint32_t first = 0;
    while (count > 0) {
        uint32_t half = count / 2;
        if (list[first + half] < value) first += half + 1, count -= half + 1;
        else count = half;
    }
    return first;
}
