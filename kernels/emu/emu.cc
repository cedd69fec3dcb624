/*
emu.cc: the scheduler behind emu.h: fibers, rounds, rendezvous, the launcher.

It is compiled without sanitizers, and informs ASan and TSan of its fibers where they are linked in (the weak symbols
below are then defined). The seed of a launch decides the order of threads: 0 is in order, 1 in reverse, any other at
random, with warps that fall behind one another. Only the last exposes a missing barrier at the end of a loop.
*/
#include "block.h"
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <pthread.h>
#include <sys/mman.h>
#include <thread>

#define WEAK extern "C" __attribute__((weak))
WEAK void __sanitizer_start_switch_fiber(void **, const void *, size_t);
WEAK void __sanitizer_finish_switch_fiber(void *, const void **, size_t *);
WEAK void __asan_unpoison_memory_region(const volatile void *, size_t);
WEAK void *__tsan_get_current_fiber();
WEAK void *__tsan_create_fiber(unsigned);
WEAK void __tsan_destroy_fiber(void *);
WEAK void __tsan_switch_to_fiber(void *, unsigned);
WEAK void __tsan_acquire(void *);
WEAK void __tsan_release(void *);

// Rust code is not instrumented, so TSan would report its queues as races. A fiber has no Rust frame.
extern "C" const char *__tsan_default_suppressions() { return "race:_RNv\nrace:_RINv\nrace:crossbeam_\nrace:rayon\n"; }

// Saves the callee-saved registers and the stack pointer of one fiber, and loads those of another.
extern "C" void emu_switch(void **from, void *to);
#if defined(__x86_64__)
asm(R"(.text
.globl emu_switch
.type emu_switch,@function
emu_switch: push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15
 mov %rsp,(%rdi); mov %rsi,%rsp
 pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp; ret
.size emu_switch,.-emu_switch
.section .note.GNU-stack,"",@progbits
.text)");
static void *prepare(char *top, void (*fn)()) {
    void **sp = reinterpret_cast<void **>(top) - 2;  // fn has no return address
    sp[0] = reinterpret_cast<void *>(fn);
    sp[1] = nullptr;
    return sp - 6;
}
#elif defined(__aarch64__)
asm(R"(.text
.globl emu_switch
.type emu_switch,%function
emu_switch: sub sp,sp,#160
 stp x19,x20,[sp]; stp x21,x22,[sp,#16]; stp x23,x24,[sp,#32]; stp x25,x26,[sp,#48]; stp x27,x28,[sp,#64]
 stp x29,x30,[sp,#80]; stp d8,d9,[sp,#96]; stp d10,d11,[sp,#112]; stp d12,d13,[sp,#128]; stp d14,d15,[sp,#144]
 mov x9,sp; str x9,[x0]; mov sp,x1
 ldp x19,x20,[sp]; ldp x21,x22,[sp,#16]; ldp x23,x24,[sp,#32]; ldp x25,x26,[sp,#48]; ldp x27,x28,[sp,#64]
 ldp x29,x30,[sp,#80]; ldp d8,d9,[sp,#96]; ldp d10,d11,[sp,#112]; ldp d12,d13,[sp,#128]; ldp d14,d15,[sp,#144]
 add sp,sp,#160; ret
.size emu_switch,.-emu_switch)");
static void *prepare(char *top, void (*fn)()) {
    void **sp = reinterpret_cast<void **>(top) - 20;
    sp[10] = nullptr, sp[11] = reinterpret_cast<void *>(fn);
    return sp;
}
#endif

namespace emu {
__thread Thread *self;
__thread Dims *dims;
__thread Block *blk;

namespace {
constexpr size_t stack_bytes = 128 << 10, page = 4096;

char *filled(size_t bytes, size_t align) {
    void *p = nullptr;
    if (posix_memalign(&p, align, bytes ? bytes : 1)) abort();
    return static_cast<char *>(p);
}
void fill(char *p, size_t n) { for (size_t i = 0; i < n; ++i) { p[i] = char(0xff); asm volatile("" ::: "memory"); } }
}  // namespace

Block::Block(unsigned n) : threads(n), fibers(n + 1) {
    size_t each = stack_bytes + page;
    map = static_cast<char *>(mmap(nullptr, each * (n + 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (map == MAP_FAILED) abort();
    for (unsigned i = 0; i <= n; ++i) {
        mprotect(map + i * each, page, PROT_NONE);
        fibers[i].stack = map + i * each + page, fibers[i].size = stack_bytes;
    }
    order.reserve(n + 1);
}
Block::~Block() {
    munmap(map, (stack_bytes + page) * (threads + 1));
    free(dynamic), free(view);
    for (auto &s : statics) free(s.data);
}

namespace {
void jump(Fiber *to) {
    Fiber *from = me();
    if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(from->done ? nullptr : &from->fake, to->stack, to->size);
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(to->tsan, 1 /* no happens-before edge */);
    self = to;
    emu_switch(&from->sp, to->sp);
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
}

[[noreturn]] void stop() {  // aborts the block
    release(&blk->ended);
    me()->done = true;
    jump(&blk->home);
    __builtin_unreachable();
}

void deadlock(Block &b) {
    std::string waits;
    std::vector<std::pair<std::string, unsigned>> count;
    for (unsigned i = 0; i < b.threads; ++i) {
        std::string s = b.fibers[i].done ? "exited" : b.fibers[i].site;
        auto it = std::find_if(count.begin(), count.end(), [&](auto &c) { return c.first == s; });
        if (it == count.end()) count.push_back({s, 1}); else ++it->second;
    }
    for (auto &c : count) waits += " " + std::to_string(c.second) + " x " + c.first + ";";
    fail("deadlock:%s", waits.c_str());
}

// Lists who runs in the next round: those that wait for nobody. With a random seed the order is random and warps fall
// behind one another by up to 64 rounds: fair turns would hide a missing barrier at the end of a loop.
void new_round(Block &b) {
    b.at = 0, b.order.clear();
    if (b.live == 0) return;
    uint64_t seed = b.launch->seed;
    // The copy engine has a turn in every round, when nobody else can run, or at random.
    bool serves = b.queued && (seed == 0 || (seed > 1 && (b.draw() & 1)));
    for (unsigned i = 0; i < b.threads; ++i) {
        unsigned f = seed == 1 ? b.threads - 1 - i : i;
        if (b.fibers[f].ready()) b.order.push_back(f);
    }
    if (b.order.empty() && !b.queued) deadlock(b);
    if (b.order.empty() || serves) b.order.push_back(b.threads);
    if (seed <= 1 || b.order.front() == b.threads) return;
    for (unsigned w = 0; w <= b.threads / 32; ++w)
        if (b.frozen[w]) --b.frozen[w];
        else if (b.draw() % 8 == 0) b.frozen[w] = b.draw() % 64;
    // Where every warp that could run is held back, the one that comes back first does.
    unsigned soonest = 64;
    for (unsigned f : b.order) if (f < b.threads) soonest = std::min(soonest, b.frozen[f / 32]);
    for (unsigned &rounds : b.frozen) rounds -= std::min(rounds, soonest);
    b.order.erase(std::remove_if(b.order.begin(), b.order.end(), [&](unsigned f) { return f < b.threads && b.frozen[f / 32] != 0; }), b.order.end());
    for (size_t i = b.order.size(); i > 1; --i) std::swap(b.order[i - 1], b.order[(b.draw() >> 32) * i >> 32]);
}

}  // namespace
void next() {
    Block &b = *blk;
    if (++b.at >= b.order.size()) new_round(b);
    Fiber *to = b.order.empty() ? &b.home : &b.fibers[b.order[b.at]];
    if (to != self) jump(to);
}
namespace {

void entry() {
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
    Block &b = *blk;
    if (self == &b.engine()) for (;;) serve(b), next();
    b.launch->entry(b.launch->params);
    if (self->copies.count) fail("a thread exits with cp.async under way");
    end_thread(b);
    release(&b.ended);
    me()->done = true, --b.live;
    next();
    __builtin_unreachable();
}

void run_block(Block &b, Launch &l, uint64_t index) {
    b.launch = &l;
    b.d = {l.grid, l.block, {unsigned(index % l.grid.x), unsigned(index / l.grid.x % l.grid.y), unsigned(index / l.grid.x / l.grid.y)}};
    b.random = (l.seed + 1) * 0x9e3779b97f4a7c15 + index;
    b.live = b.threads, b.order.clear(), b.at = 0;
    memset(b.frozen, 0, sizeof b.frozen);
    for (auto &s : b.statics) fill(s.data, s.bytes);
    if (b.dynamic_bytes != l.shared) {
        free(b.dynamic), free(b.view);
        b.dynamic = filled(l.shared, 1024), b.view = filled(l.shared, 1024), b.dynamic_bytes = l.shared;
    }
    fill(b.dynamic, l.shared), fill(b.view, l.shared);
    begin_block(b);
    for (unsigned i = 0; i <= b.threads; ++i) {
        Fiber &f = b.fibers[i];
        if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(f.stack, f.size);
        if (__tsan_create_fiber) f.tsan = __tsan_create_fiber(0);
        f.copies.count = f.copies.committed = f.stores = 0;
        f.rank = i, f.done = false, f.fake = nullptr, f.site = "start", f.generation = nullptr;
        f.tid = {i % l.block.x, i / l.block.x % l.block.y, i / l.block.x / l.block.y};
        f.sp = prepare(f.stack + f.size, entry);
    }
    if (__tsan_get_current_fiber) b.home.tsan = __tsan_get_current_fiber();
    if (__sanitizer_start_switch_fiber) {
        pthread_attr_t attr;
        void *stack;
        pthread_getattr_np(pthread_self(), &attr), pthread_attr_getstack(&attr, &stack, &b.home.size), pthread_attr_destroy(&attr);
        b.home.stack = static_cast<char *>(stack);
    }
    blk = &b, dims = &b.d, self = &b.home;
    next();
}
}  // namespace

void fail(const char *fmt, ...) {
    va_list a;
    va_start(a, fmt);
    char text[400];
    vsnprintf(text, sizeof text, fmt, a);
    va_end(a);
    auto &t = *self; auto &i = dims->bid;
    snprintf(blk->message, sizeof blk->message, "block (%u,%u,%u) thread (%u,%u,%u): %s", i.x, i.y, i.z, t.tid.x, t.tid.y, t.tid.z, text);
    stop();
}
void acquire(void *p) { if (__tsan_acquire) __tsan_acquire(p); }
void release(void *p) { if (__tsan_release) __tsan_release(p); }
void wait(const unsigned &generation, Site site) {
    Fiber &f = *me();
    f.site = site, f.generation = &generation, f.waits = generation;
    next();
    f.generation = nullptr;
}
template <int N> static void meet(Group<N> &g, unsigned expected, int line, Site what) {  // with happens-before edges
    if (g.arrived && g.tag != unsigned(line)) fail("threads of one block wait in %s at lines %u and %d", what, g.tag, line);
    g.tag = unsigned(line);
    char *edge = &g.edge[g.generation & 1];
    release(edge);
    if (++g.arrived == expected) g.arrived = 0, ++g.generation;
    else wait(g.generation, what);
    acquire(edge);
}
void barrier(int line) { meet(blk->bar[0], blk->threads, line, "__syncthreads"); }
void barrier(unsigned id, unsigned threads, int line) {
    if (id == 0 || id > 15 || threads % 32 || threads == 0) fail("bar.sync: barrier %u of %u threads", id, threads);
    meet(blk->bar[id], threads, line, "bar.sync");
}
void syncwarp(unsigned mask) { meet(blk->warp[self->rank / 32][__builtin_ctz(mask)], __builtin_popcount(mask), 0, "__syncwarp"); }

uint64_t shuffle(unsigned mask, uint64_t v, int from) {
    struct Arg { uint64_t in, out; int from; } a{v, v, from};
    warp_collect(mask, "__shfl_sync", &a, [](void **p, void *m) {
        unsigned mask = *static_cast<unsigned *>(m);
        for (int i = 0; i < 32; ++i) if (mask >> i & 1) {
            auto *x = static_cast<Arg *>(p[i]);
            if (x->from < 0) continue;
            if (!(mask >> x->from & 1)) x->out = 0xfffffffffffbadfd;  // undefined in CUDA
            else x->out = static_cast<Arg *>(p[x->from])->in;
        }
    });
    return a.out;
}
bool coin() { uint64_t seed = blk->launch->seed; return seed == 0 || (seed > 1 && (blk->draw() & 1)); }
unsigned ballot(unsigned mask, bool v) {
    struct Arg { bool in; unsigned out; } a{v, 0};
    warp_collect(mask, "__ballot_sync", &a, [](void **p, void *m) {
        unsigned mask = *static_cast<unsigned *>(m), r = 0;
        for (int i = 0; i < 32; ++i) if (mask >> i & 1) r |= unsigned(static_cast<Arg *>(p[i])->in) << i;
        for (int i = 0; i < 32; ++i) if (mask >> i & 1) static_cast<Arg *>(p[i])->out = r;
    });
    return a.out;
}
void *shared(const void *key, size_t bytes) {
    for (auto &s : blk->statics) if (s.key == key) { acquire(&blk->made); return s.data; }
    Shared s{key, filled(bytes, 128), bytes};
    fill(s.data, bytes);
    blk->statics.push_back(s);
    release(&blk->made);
    return s.data;
}
void *dynamic_shared(size_t bytes) {
    if (bytes > blk->launch->shared) fail("the kernel uses %zu bytes of dynamic shared memory, the launch gave %u", bytes, blk->launch->shared);
    return blk->dynamic;
}
static thread_local uint64_t products;
extern "C" uint64_t emu_products() { return products; }
const char *launch(Entry entry, const uint32_t g[3], const uint32_t t[3], uint32_t shared, void **params, uint64_t seed) {
    static std::mutex lock;
    static std::vector<std::unique_ptr<Block>> idle;
    static thread_local std::string error;
    Launch l{entry, {g[0], g[1], g[2]}, {t[0], t[1], t[2]}, shared, params, seed};
    unsigned threads = t[0] * t[1] * t[2];
    uint64_t blocks = uint64_t(g[0]) * g[1] * g[2];
    if (threads == 0 || threads > 1024 || shared > 232448 || blocks == 0 || g[1] > 65535 || g[2] > 65535) return "launch: bad configuration";
    bool sanitized = __tsan_create_fiber || __sanitizer_start_switch_fiber;
    std::vector<std::unique_ptr<Block>> kept;  // for TSan: concurrent blocks may not reuse memory
    auto retire = [&] {
        for (auto &b : kept) {
            acquire(&b->ended);
            for (auto &f : b->fibers) __tsan_destroy_fiber(f.tsan);
        }
        kept.clear();
    };
    auto work = [&] {
        std::unique_ptr<Block> b;
        for (uint64_t i; (i = l.next++) < blocks;) {
            if (!b) {
                std::lock_guard<std::mutex> hold(lock);
                auto it = std::find_if(idle.begin(), idle.end(), [&](auto &x) { return x->threads == threads; });
                if (it != idle.end()) b = std::move(*it), idle.erase(it);
            }
            if (!b) b = std::make_unique<Block>(threads);
            run_block(*b, l, i);
            if (*b->message) {
                acquire(&b->ended);
                std::lock_guard<std::mutex> hold(l.lock);
                if (l.error.empty()) l.error = b->message;
                l.next = blocks;
                if (!__tsan_create_fiber) b.reset();  // its rendezvous points are half done
            }
            if (!__tsan_create_fiber) continue;
            kept.push_back(std::move(b));
            if (kept.size() * threads > 6000) retire();
        }
        std::lock_guard<std::mutex> hold(lock);
        if (b) idle.push_back(std::move(b));
    };
    std::vector<std::thread> team;
    unsigned workers = sanitized ? 1 : std::min<uint64_t>(std::max(1u, std::thread::hardware_concurrency()), blocks);
    for (unsigned i = 1; i < workers; ++i) team.emplace_back(work);
    work();
    for (auto &x : team) x.join();
    retire();
    error = l.error, products = l.products;
    return error.empty() ? nullptr : error.c_str();
}
}  // namespace emu
