/*
block.h: what the files of the emulator share, and kernels do not see: fibers, the state of a block, rendezvous.
*/
#pragma once
#include "emu.h"
#include "sm90.h"
#include <atomic>
#include <mutex>
#include <string>
#include <vector>

namespace emu {
using Site = const char *;  // where a fiber waits
// Happens-before edges for TSan.
void acquire(void *), release(void *);

struct Fiber : Thread {
    void *sp = nullptr, *tsan = nullptr, *fake = nullptr;
    char *stack = nullptr;  // lowest usable byte
    size_t size = 0;
    bool done = false;
    Site site = "start";
    int stores = 0;  // groups of bulk stores that it committed
    // It waits while *generation == waits, and is passed over meanwhile: turns that only look cost most of the time.
    const unsigned *generation = nullptr;
    unsigned waits = 0;
    bool ready() const { return !done && !(generation && *generation == waits); }
};

// A rendezvous of `expected` threads, at most N: the last to arrive runs the operation on everyone's arguments.
template <int N> struct Group {
    unsigned arrived = 0, generation = 0, tag = 0;
    void *arg[N];
    char edge[2];
};

struct Launch {
    Entry entry;
    dim3 grid, block;
    uint32_t shared;  // bytes of dynamic shared memory
    void **params;
    uint64_t seed;
    std::atomic<uint64_t> next{0}, products{0};
    std::mutex lock{};
    std::string error{};
};
struct Shared { const void *key; char *data; size_t bytes; };

// A wgmma that was issued. Its sums are in an accumulator of its warpgroup until the wait that makes them valid.
struct Wgmma {
    const uint32_t *a_registers[128];  // null: a is in shared memory
    uint64_t a, b;
    int n, group, accumulator;
    bool a_mn, b_mn, adds;
    Operand kind;
    ReadOperand read;
};
// The registers that one chain of wgmma adds to. While `live`, the registers hold NaN, and the sums are here.
struct Accumulator {
    float *registers[128];
    int n, group;  // group: the last one that adds to it
    bool live;
    float sum[64][256];
};
constexpr int WGMMAS = 64, ACCUMULATORS = 4, BULKS = 64;
struct Warpgroup {
    Group<128> group;
    Wgmma queue[WGMMAS];
    Accumulator held[ACCUMULATORS];
    int queued, accumulators, committed;
    bool open, fenced;  // open: wgmma without a commit; fenced: wgmma.fence since registers became valid
    uint32_t fragment[128][4];  // of the last wgmma with a in registers: changed ones need a fence
    bool fragment_fenced;
    unsigned registers;  // of a thread
};

// The state of one block; reused for the next block, except under TSan.
struct Block {
    Dims d;
    Launch *launch = nullptr;
    unsigned threads, live = 0;
    char *map;
    Fiber home;                 // the OS thread's own stack
    std::vector<Fiber> fibers;  // one per thread, and the copy engine last
    std::vector<unsigned> order;
    size_t at = 0;
    uint64_t random = 0;
    unsigned frozen[33] = {};  // rounds for which a warp is held back
    Group<32> warp[32][32];
    Group<1> bar[16];
    Warpgroup groups[8];
    Bulk bulks[BULKS];  // the copy engine's queue
    unsigned queued = 0;
    unsigned events = 0;  // phases that ended, bulk copies that were done, registers that were released
    unsigned unfenced = 0;  // mbarriers initialised, which the async proxy does not see yet
    // Dynamic shared memory, and as the async proxy sees it: see fence_proxy_async.
    char *dynamic = nullptr, *view = nullptr;
    size_t dynamic_bytes = 0;
    char ended, made;  // addresses of TSan edges
    std::vector<Shared> statics;
    char message[512] = "";

    explicit Block(unsigned threads);
    ~Block();
    Fiber &engine() { return fibers[threads]; }
    uint64_t draw() { random ^= random << 13, random ^= random >> 7, random ^= random << 17; return random; }
};
extern __thread Block *blk;
inline Fiber *me() { return static_cast<Fiber *>(self); }

// Lets other fibers run.
void next();
// Gives turns to others until the generation is another.
void wait(const unsigned &generation, Site site);

// Register exchange: no happens-before edge, as in CUDA.
template <int N>
void collect(Group<N> &g, unsigned rank, unsigned expected, unsigned tag, Site what, void *arg, void (*op)(void **, void *), void *extra = nullptr) {
    if (g.arrived && g.tag != tag) fail("%s: lanes disagree on the mask or the operation", what);
    g.tag = tag, g.arg[rank] = arg;
    if (++g.arrived == expected) op(g.arg, extra), g.arrived = 0, ++g.generation;
    else wait(g.generation, what);
}
inline void warp_collect(unsigned mask, Site what, void *arg, void (*op)(void **, void *)) {
    unsigned lane = self->rank & 31;
    if (!(mask >> lane & 1)) fail("%s: the mask %08x leaves out its own lane %u", what, mask, lane);
    collect(blk->warp[self->rank / 32][__builtin_ctz(mask)], lane, unsigned(__builtin_popcount(mask)), mask, what, arg, op, &mask);
}

// Of sm90.cc: what a block and a thread begin and end with, and a turn of the copy engine.
void begin_block(Block &), end_thread(Block &), serve(Block &);
}  // namespace emu
