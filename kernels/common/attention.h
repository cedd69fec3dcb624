/*
attention.h: where the kernels of attention find a head of an image: q, k and v of its tokens, and the weights. Channels are
packed as q, k, v, each heads x width.
*/
#pragma once
#include "element.h"

// A t x width matrix in a buffer; `stride` is that of its rows.
template <class T> struct Part { const T* at; uint32_t stride; };

// One head of one image, and the first row of this block.
struct Head {
    uint32_t t, width, dim, first, packed, out, square, keys;  // the last four: offsets in x, y, the square matrices and the mask
    DEVICE Head(uint32_t t, uint32_t heads, uint32_t width, uint32_t rows) : t(t), width(width), dim(heads * width) {
        uint32_t blocks = (t + rows - 1) / rows, head = blockIdx.x / blocks, image = head / heads;
        first = blockIdx.x % blocks * rows;
        packed = image * t * 3 * dim + head % heads * width;
        out = image * t * dim + head % heads * width;
        square = head * t * t;
        keys = image * t;
    }
    template <class T> DEVICE Part<T> of(const T* x, uint32_t part) const { return {x + packed + part * dim, 3 * dim}; }
    template <class T> DEVICE Part<T> of(const T* y) const { return {y + out, dim}; }
    DEVICE float scale() const { return 1.0f / sqrtf(float(width)); }
};

// Attention within windows of side x side tokens, which come column by column: `rows` by `columns` of them are an image.
struct Windows {
    uint32_t side, rows, columns, down, right;
    DEVICE uint32_t offset(uint32_t query, uint32_t key) const {  // the row of the table of relative positions
        return (query % side + side - 1 - key % side) * (2 * side - 1) + query / side + side - 1 - key / side;
    }
    DEVICE bool were_apart(uint32_t window, uint32_t a, uint32_t b) const {  // before the cyclic shift
        bool low = window / columns % rows + 1 == rows, far = window % columns + 1 == columns;
        bool row = low && (a % side + down >= side) != (b % side + down >= side);
        return row || (far && (a / side + right >= side) != (b / side + right >= side));
    }
};
