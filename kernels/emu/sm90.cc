/*
sm90.cc: mbarriers, the copy engine, the async proxy's view of shared memory, setmaxnreg. See sm90.h.
*/
#include "block.h"
#include <algorithm>

namespace emu {
uint32_t shared_offset(const void *p) {
    auto offset = static_cast<const char *>(p) - blk->dynamic;
    if (offset < 0 || offset >= int64_t(blk->launch->shared)) fail("an address outside dynamic shared memory");
    return uint32_t(offset);
}
char *shared_pointer(uint32_t offset) {
    if (offset >= blk->launch->shared) fail("offset %u beyond dynamic shared memory", offset);
    return blk->dynamic + offset;
}

void begin_block(Block &b) {
    b.queued = b.events = b.unfenced = 0;
    for (unsigned i = 0; i < (b.threads + 127) / 128 && i < 8; ++i) {
        Warpgroup &q = b.groups[i];
        q.queued = q.accumulators = q.committed = 0;
        q.open = q.fenced = q.fragment_fenced = false;
        q.registers = std::min(255u, 65536 / b.threads / 8 * 8);
    }
}
void end_thread(Block &b) {
    if (b.threads >= 128 && self->rank / 128 < 8) {
        Warpgroup &q = b.groups[self->rank / 128];
        bool waits = q.open || q.queued;
        for (int i = 0; i < q.accumulators; ++i) waits = waits || q.held[i].live;
        if (waits) fail("a warpgroup exits with wgmma under way");
    }
    for (unsigned i = 0; i < b.queued; ++i)
        if (!b.bulks[i].barrier && b.bulks[i].owner == self->rank) fail("a thread exits with a bulk store under way");
    if (b.live == 1 && b.queued) fail("a block exits with a bulk load under way");
}

// The view differs from shared memory where threads have written since the last fence.
void fence_proxy_async() { memcpy(blk->view, blk->dynamic, blk->dynamic_bytes), blk->unfenced = 0; }
void fence_mbarrier_init() { blk->unfenced = 0; }
void async_wrote(const void *p, unsigned bytes) { memcpy(blk->view + (static_cast<const char *>(p) - blk->dynamic), p, bytes); }
void async_reads(const void *p, unsigned bytes, const char *what) {
    auto offset = static_cast<const char *>(p) - blk->dynamic;
    if (memcmp(blk->view + offset, p, bytes)) fail("%s reads what threads wrote, without fence.proxy.async (byte %d)", what, int(offset));
}

// The 8 bytes of an mbarrier: its phase, arrivals to come, their count, bytes to come.
struct Mbarrier { uint64_t phase : 1, pending : 20, count : 20; int64_t bytes : 23; };
static Mbarrier &mbarrier(uint64_t *p) {
    if (*p == ~0ull) fail("an mbarrier before its init");
    return *reinterpret_cast<Mbarrier *>(p);
}
static void settle(Mbarrier &m) {
    if (m.pending == 0 && m.bytes == 0) m.phase ^= 1, m.pending = m.count, ++blk->events;
}
static void *edge(uint64_t *p, unsigned phase) { return reinterpret_cast<char *>(p) + phase; }
void mbarrier_init(uint64_t *p, unsigned count) {
    Mbarrier m{0, count, count, 0};
    memcpy(static_cast<void *>(p), &m, 8);
    ++blk->unfenced;
}
void mbarrier_arrive(uint64_t *p, unsigned expected) {
    Mbarrier &m = mbarrier(p);
    release(edge(p, m.phase));
    if (m.pending == 0) fail("an mbarrier: more arrivals than its count");
    unsigned phase = m.phase;
    m.bytes += expected, m.pending = m.pending - 1, settle(m);
    // Whoever ends a phase may fall behind those that waited for it: what it should have done before shows then.
    if (m.phase != phase && blk->launch->seed > 1 && coin()) blk->frozen[self->rank / 32] = unsigned(blk->draw() >> 32) % 64, next();
}
void mbarrier_wait(uint64_t *p, unsigned parity) {
    while (mbarrier(p).phase == parity) wait(blk->events, "mbarrier wait");
    acquire(edge(p, parity));
}

void bulk(const Bulk &job) {
    if (blk->queued == BULKS) fail("more than %d bulk copies in flight", BULKS);
    if (job.barrier) {
        mbarrier(job.barrier);
        if (blk->unfenced) fail("TMA: an mbarrier that was initialised without fence.mbarrier_init");
    }
    release(&blk->bulks);
    Bulk &mine = blk->bulks[blk->queued++];
    mine = job, mine.owner = self->rank, mine.group = me()->stores;
}
void bulk_commit() { ++me()->stores; }
void bulk_wait(int pending) {
    auto due = [&] {
        return std::any_of(blk->bulks, blk->bulks + blk->queued, [&](const Bulk &job) {
            return !job.barrier && job.owner == self->rank && job.group < me()->stores - pending;
        });
    };
    while (due()) wait(blk->events, "cp.async.bulk.wait_group");
    acquire(&blk->queued);
}
void serve(Block &b) {
    do {
        if (!b.queued) return;
        unsigned i = b.launch->seed > 1 ? unsigned(b.draw() >> 32) % b.queued : 0;
        Bulk job = b.bulks[i];
        b.bulks[i] = b.bulks[--b.queued];
        acquire(&b.bulks);
        job.run(job);
        ++b.events;
        if (!job.barrier) { release(&b.queued); continue; }
        Mbarrier &m = mbarrier(job.barrier);
        release(edge(job.barrier, m.phase));
        m.bytes -= job.bytes, settle(m);
    } while (b.launch->seed == 0);
}

void registers(unsigned count, bool more) {
    struct Arg { unsigned count; bool more; } arg{count, more};
    Warpgroup &q = blk->groups[self->rank / 128];
    if (count < 24 || count > 256 || count % 8) fail("setmaxnreg: %u registers", count);
    collect(q.group, self->rank % 128, 128, 4, "setmaxnreg", &arg, [](void **p, void *) {
        auto **lane = reinterpret_cast<Arg **>(p);
        for (int t = 1; t < 128; ++t)
            if (lane[t]->count != lane[0]->count || lane[t]->more != lane[0]->more) fail("setmaxnreg: threads disagree");
    });
    if (self->rank % 128 == 0) {
        if (more ? count < q.registers : count > q.registers) fail("setmaxnreg: from %u to %u registers", q.registers, count);
        auto others = [&] {
            unsigned sum = 0;
            for (unsigned i = 0; i < blk->threads / 128; ++i) if (&blk->groups[i] != &q) sum += blk->groups[i].registers;
            return sum;
        };
        while (more && 128 * (others() + count) > 65536) wait(blk->events, "setmaxnreg");
        q.registers = count, ++blk->events;
    }
    collect(q.group, self->rank % 128, 128, 5, "setmaxnreg", &arg, [](void **, void *) {});
}
}  // namespace emu

// The emulated half of a tensor map, of cuTensorMapEncodeTiled and cuTensorMapEncodeIm2col (lower not null).
extern "C" void emu_tensor_map(TensorMap *map, void *base, uint32_t rank, const uint64_t *dim, const uint64_t *pitch, const uint32_t *box, const int *lower, const int *upper, const uint32_t *step, uint32_t swizzle) {
    emu::Map m{};
    m.base = static_cast<char *>(base), m.rank = uint8_t(rank), m.swizzle = uint8_t(swizzle), m.im2col = lower != nullptr;
    for (uint32_t i = 0; i < rank; ++i) m.dim[i] = uint32_t(dim[i]);
    for (uint32_t i = 0; i + 1 < rank; ++i) m.pitch[i] = pitch[i];
    for (uint32_t i = 0; i < (lower ? 2 : rank); ++i) m.box[i] = uint16_t(box[i]);
    for (int i = 0; lower && i < 2; ++i) m.lower[i] = int16_t(lower[i]), m.upper[i] = int16_t(upper[i]), m.step[i] = uint8_t(step[i]);
    *map = {};
    memcpy(static_cast<void *>(map), &m, sizeof m);
}
