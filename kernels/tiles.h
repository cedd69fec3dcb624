// tiles.h: the launch shapes that kernels and host share; build.rs makes a Rust module of it.
#pragma once
#include <cstdint>

constexpr uint32_t PERTURB_THREADS = 256;    // each draws one Philox block: 4 elements
constexpr uint32_t RANK_THREADS = 256;       // one per value, and the values of a tile
constexpr uint32_t SORT_THREADS = 256;
constexpr uint32_t SORT_TILE = 2048;         // values sorted in shared memory; a power of two
constexpr uint32_t NEAREST_THREADS = 128;    // one per row, and the rows of a tile
constexpr uint32_t NEAREST_COLUMNS = 4;      // candidates that a thread handles side by side
constexpr uint32_t STATISTIC_THREADS = 256;  // a power of two
constexpr uint32_t POOL_THREADS = 256;       // one per element that is written
constexpr uint32_t PTX_STAGES = 3;           // rows under way in copy_async
