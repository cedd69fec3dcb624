// tiles.h: the launch shapes that kernels and host share; build.rs makes a Rust module of it.
#pragma once
#include <cstdint>

constexpr uint32_t PEAK_THREADS = 128;
constexpr uint32_t PEAK_SUMS = 8;            // 8 hide what one multiplication takes
constexpr uint32_t PERTURB_THREADS = 256;    // each draws one Philox block: 4 elements
constexpr uint32_t RANK_THREADS = 256;       // one per value, and the values of a tile
constexpr uint32_t SORT_THREADS = 256;
constexpr uint32_t SORT_TILE = 2048;         // values sorted in shared memory; a power of two
constexpr uint32_t NEAREST_THREADS = 128;    // one per row, and the rows of a tile; a power of two
constexpr uint32_t NEAREST_COLUMNS = 8;      // candidates that a thread handles side by side
constexpr uint32_t XI_THREADS = 128;         // a warp per run, or a power of two that share a sum
constexpr uint32_t XI_CHUNK = 4096;          // differences of a block's sum
constexpr uint32_t LIST_THREADS = 128;       // a block per row
constexpr uint32_t LIST_STEP = 512;          // others that a block looks at between two barriers; a power of two
constexpr uint32_t LIST_LEAST = 32;          // entries of a list: powers of two from here
constexpr uint32_t LIST_MOST = 2048;         // to here: twice as many lie in shared memory
constexpr uint32_t STATISTIC_THREADS = 256;  // a power of two
constexpr uint32_t POOL_THREADS = 256;       // one per element that is written
constexpr uint32_t ACTIVATION_THREADS = 256; // one per element
constexpr uint32_t POINTWISE_THREADS = 256;  // one per element
constexpr uint32_t SHAPE_THREADS = 256;      // one per element that is written
constexpr uint32_t MEANS_THREADS = 256;      // one per image and channel
constexpr uint32_t CHUNKS_THREADS = 256;     // one per parameter
constexpr uint32_t VECTOR_THREADS = 256;     // one per element, or a power of two that share a sum
constexpr uint32_t VECTOR_CHUNK = 4096;      // products of a block's sum
constexpr uint32_t LAYER_NORM_THREADS = 128; // a warp per position
constexpr uint32_t BATCH_NORM_THREADS = 256; // a lane per channel, a warp per position
constexpr uint32_t LOSS_THREADS = 128;       // a warp per row, or a thread per value
constexpr uint32_t TOKENS_THREADS = 128;     // a warp per copy
constexpr uint32_t OPTIMIZER_THREADS = 256;  // one per parameter
constexpr uint32_t ATTENTION_THREADS = 128;  // four warps
constexpr uint32_t ATTENTION_TOKENS = 256;   // the longest sequence: whole rows of t x t lie in shared memory
constexpr uint32_t ATTENTION_ROWS = 16;      // of them a block holds
constexpr uint32_t ATTENTION_FEW = 8;        // where it holds three matrices
constexpr uint32_t GEMM_THREADS = 128;       // four warps
constexpr uint32_t GEMM_TILE = 64;           // rows, and columns, of a block's sums
constexpr uint32_t GEMM_DEPTH = 16;          // products of a sum in a step
constexpr uint32_t GEMM_STAGES = 3;          // steps that are held or on their way
constexpr uint32_t CONV_RELU = 1;            // numbers of the activations that an epilogue has
constexpr uint32_t CONV_GELU = 2;
constexpr uint32_t DEPTHWISE_THREADS = 128;  // four warps: a lane per channel
constexpr uint32_t DEPTHWISE_CHANNELS = 32;  // of a block
constexpr uint32_t DEPTHWISE_TAPS = 32;      // whose weights are held
constexpr uint32_t DEPTHWISE_SUMS = 8;       // taps whose gradients a thread sums
constexpr uint32_t PTX_STAGES = 3;           // rows under way in copy_async
