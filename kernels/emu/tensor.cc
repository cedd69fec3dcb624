/*
tensor.cc: tensor cores: ldmatrix and stmatrix, mma.sync and wgmma, and how their sums are rounded.

A tensor core does not round its sums to nearest. It takes `terms` products and the sum so far, cuts each of them off at
`bits` bits below the leading bit of the largest (the leading bit of a product is the sum of those of its factors), adds
what is left without error, and cuts the result off to f32. The next `terms` products are then added to that. The
numbers are public measurements (Xie et al., MMA-Sim, arXiv 2511.10909; Khattak and Mikaitis, Accurate Models of NVIDIA
Tensor Cores, arXiv 2512.07004). mma.sync is rounded as on sm_80, the coarser of the two; wgmma as on sm_90. Subnormal
factors count by their own leading bit.
*/
#include "block.h"
#include <algorithm>

namespace emu {
namespace {
struct Rounding { int terms, bits; };
constexpr Rounding MMA_TF32{4, 24}, MMA_HALVES{8, 24}, WGMMA_HALVES{16, 25};
constexpr int NONE = -400, NOT_FINITE = 512;  // exponents

int16_t exponent(double x) {  // of the leading bit
    int e = int(emu_bits<uint64_t>(x) >> 52 & 2047) - 1023;
    return int16_t(x == 0.0 ? NONE : std::max(e, NONE));
}
double power(int e) { return emu_bits<double>(uint64_t(e + 1023) << 52); }

// One operand with the exponents of its values, depth outermost: [k][WIDTH].
template <int DEPTH, int WIDTH> struct Factors {
    double of[DEPTH][WIDTH];
    int16_t leading[DEPTH][WIDTH];
    void set(int k, int i, double x) { of[k][i] = x, leading[k][i] = exponent(x); }
};

// sum[j] += the products of row i of a with columns first + j of b, j < 8.
template <int DEPTH, int ROWS, int COLUMNS>
void add_products(float *sum[8], const Factors<DEPTH, ROWS> &a, int i, const Factors<DEPTH, COLUMNS> &b, int first, int depth, Rounding as) {
    for (int start = 0; start < depth; start += as.terms) {
        int end = std::min(start + as.terms, depth);
        int16_t top[8];
        double scale[8], total[8];
        for (int j = 0; j < 8; ++j) top[j] = exponent(*sum[j]);
        for (int k = start; k < end; ++k)
            for (int j = 0; j < 8; ++j) top[j] = std::max(top[j], int16_t(a.leading[k][i] + b.leading[k][first + j]));
        if (*std::max_element(top, top + 8) >= NOT_FINITE) {  // infinite or no number: as in any order
            for (int j = 0; j < 8; ++j) {
                double all = *sum[j];
                for (int k = start; k < end; ++k) all += a.of[k][i] * b.of[k][first + j];
                *sum[j] = float(all);
            }
            continue;
        }
        for (int j = 0; j < 8; ++j) scale[j] = power(as.bits - std::max<int>(top[j], NONE)), total[j] = int32_t(*sum[j] * scale[j]);
        for (int k = start; k < end; ++k)
            for (int j = 0; j < 8; ++j) total[j] += int32_t(a.of[k][i] * b.of[k][first + j] * scale[j]);
        for (int j = 0; j < 8; ++j) {
            uint64_t kept = emu_bits<uint64_t>(total[j]) & ~((uint64_t(1) << 29) - 1);  // 24 bits
            *sum[j] = float(emu_bits<double>(kept) * power(std::max<int>(top[j], NONE) - as.bits));
        }
    }
}
double of_half(uint32_t bits, Operand kind) { return kind == F16 ? half(bits) : double(emu_bits<float>(bits << 16)); }
}  // namespace

void ldmatrix(uint32_t *out, const uint16_t (&row)[8], bool transpose) {
    struct Arg { const uint16_t *row; uint32_t *out; bool transpose; } a{row, out, transpose};
    warp_collect(~0u, "ldmatrix", &a, [](void **p, void *) {
        auto **lane = reinterpret_cast<Arg **>(p);
        for (int l = 0; l < 32; ++l)
            for (int i = 0; i < 4; ++i) {
                int r = l / 4, c = l % 4 * 2;
                bool t = lane[l]->transpose;
                uint32_t low = t ? lane[8 * i + c]->row[r] : lane[8 * i + r]->row[c];
                uint32_t high = t ? lane[8 * i + c + 1]->row[r] : lane[8 * i + r]->row[c + 1];
                lane[l]->out[i] = low | high << 16;
            }
    });
}
void stmatrix(uint16_t (&row)[8], const uint32_t *words) {
    struct Arg { uint16_t *row; const uint32_t *words; } a{row, words};
    warp_collect(~0u, "stmatrix", &a, [](void **p, void *) {
        auto **lane = reinterpret_cast<Arg **>(p);
        for (int l = 0; l < 32; ++l)
            for (int c = 0; c < 8; ++c) lane[l]->row[c] = uint16_t(lane[l % 8 * 4 + c / 2]->words[l / 8] >> c % 2 * 16);
    });
}

// m16n8: k8 in tf32 (the low 13 bits are ignored), or k16 in bf16 or f16.
void mma(float *d, const uint32_t *a, const uint32_t *b, Operand kind) {
    struct Arg { float *d; const uint32_t *a, *b; Operand kind; } arg{d, a, b, kind};
    if (self->rank % 32 == 0) blk->launch->products += kind == TF32 ? 1024 : 2048;
    warp_collect(~0u, "mma.sync", &arg, [](void **p, void *) {
        auto **lane = reinterpret_cast<Arg **>(p);
        Operand kind = lane[0]->kind;
        auto value = [&](uint32_t word, int which) {
            return kind == TF32 ? double(emu_bits<float>(word & ~0x1fffu)) : of_half(word >> 16 * which & 0xffff, kind);
        };
        int of_word = kind == TF32 ? 1 : 2, depth = 8 * of_word;  // numbers
        Factors<16, 16> a;
        Factors<16, 8> b;
        for (int k = 0; k < depth; ++k) {
            int word = k / of_word, which = k % of_word;
            for (int row = 0; row < 16; ++row) a.set(k, row, value(lane[row % 8 * 4 + word % 4]->a[word / 4 * 2 + row / 8], which));
            for (int column = 0; column < 8; ++column) b.set(k, column, value(lane[column * 4 + word % 4]->b[word / 4], which));
        }
        for (int row = 0; row < 16; ++row) {
            float *sum[8];
            for (int column = 0; column < 8; ++column) sum[column] = &lane[row % 8 * 4 + column / 2]->d[row / 8 * 2 + column % 2];
            add_products(sum, a, row, b, 0, depth, kind == TF32 ? MMA_TF32 : MMA_HALVES);
        }
    });
}

// wgmma: m64 n k16 of one warpgroup. Thread t has rows 16 (t / 32) + t % 32 / 4 and 8 below, and columns 8 i + t % 4 * 2
// and the next; the fragments of a are those of mma for its warp's 16 rows.
static void run(const Wgmma &op, Accumulator &to) {
    static thread_local uint16_t halves[256 * 16];
    static thread_local Factors<16, 64> a;
    static thread_local Factors<16, 256> b;
    if (op.a_registers[0]) {
        for (int row = 0; row < 64; ++row)
            for (int k = 0; k < 16; ++k) {
                const uint32_t *words = op.a_registers[row / 16 * 32 + row % 8 * 4 + k % 8 / 2];
                a.set(k, row, of_half(words[k / 8 * 2 + row % 16 / 8] >> k % 2 * 16 & 0xffff, op.kind));
            }
    } else {
        op.read(op.a, 64, op.a_mn, halves);
        for (int row = 0; row < 64; ++row) for (int k = 0; k < 16; ++k) a.set(k, row, of_half(halves[row * 16 + k], op.kind));
    }
    op.read(op.b, op.n, op.b_mn, halves);
    for (int column = 0; column < op.n; ++column) for (int k = 0; k < 16; ++k) b.set(k, column, of_half(halves[column * 16 + k], op.kind));
    for (int row = 0; row < 64; ++row)
        for (int first = 0; first < op.n; first += 8) {
            float *sum[8];
            for (int j = 0; j < 8; ++j) {
                sum[j] = &to.sum[row][first + j];
                if (!op.adds) *sum[j] = 0.0f;
            }
            add_products(sum, a, row, b, first, 16, WGMMA_HALVES);
        }
}
// Calls each(thread, register, sum) for the sums of an accumulator.
template <class Each> static void each_sum(Accumulator &x, Each each) {
    for (int t = 0; t < 128; ++t)
        for (int i = 0; i < x.n / 2; ++i) each(x.registers[t][i], x.sum[t / 32 * 16 + t % 32 / 4 + i / 2 % 2 * 8][i / 4 * 8 + t % 4 * 2 + i % 2]);
}
template <class Op> static void warpgroup(void *arg, unsigned tag, Site what, Op op) {
    if (blk->threads % 128) fail("%s: a block that is not of whole warpgroups", what);
    collect(blk->groups[self->rank / 128].group, self->rank % 128, 128, tag, what, arg, +op);
}
static Warpgroup &mine() { return blk->groups[self->rank / 128]; }

void wgmma_fence() {
    warpgroup(nullptr, 1, "wgmma.fence", [](void **, void *) { mine().fenced = mine().fragment_fenced = true; });
}
// The accumulator that these registers are, or become. Registers that wgmma left and nobody changed may be added to
// without a fence.
static int accumulator(Warpgroup &q, void **lanes, const Wgmma &op, float *(*registers)(void *)) {
    bool fenced = q.fenced;
    int at = ACCUMULATORS;
    for (int i = 0; i < ACCUMULATORS; ++i) {
        Accumulator &x = q.held[i];
        bool used = i < q.accumulators, here = used && x.registers[0] == registers(lanes[0]);
        if (here && x.live && x.n != op.n) fail("wgmma: registers that another shape still adds to");
        if (here && x.live) return i;
        if (here && x.n == op.n && op.adds) {
            bool same = true;
            each_sum(x, [&](float &has, float &sum) { same = same && emu_bits<uint32_t>(has) == emu_bits<uint32_t>(sum); });
            fenced = fenced || same;
        }
        if (here || !used || (!x.live && at == ACCUMULATORS)) at = i;
        if (here || !used) break;
    }
    if (!fenced) fail("wgmma: registers changed hands without wgmma.fence");
    if (at == ACCUMULATORS) fail("wgmma: more than %d sets of registers", ACCUMULATORS);
    q.accumulators = std::max(q.accumulators, at + 1);
    Accumulator &x = q.held[at];
    for (int t = 0; t < 128; ++t) x.registers[t] = registers(lanes[t]);
    x.n = op.n, x.live = true;
    each_sum(x, [&](float &has, float &sum) { sum = has, has = NAN; });
    return at;
}
void wgmma(float *d, int n, const uint32_t *a_registers, uint64_t a, uint64_t b, bool a_mn, bool b_mn, bool adds, Operand kind, ReadOperand read) {
    struct Arg { float *d; Wgmma op; } arg{d, {{a_registers}, a, b, n, 0, 0, a_mn, b_mn, adds, kind, read}};
    warpgroup(&arg, unsigned(1000 + n), "wgmma.mma_async", [](void **p, void *) {
        auto **lane = reinterpret_cast<Arg **>(p);
        Warpgroup &q = mine();
        if (q.queued == WGMMAS) fail("more than %d wgmma without a wait", WGMMAS);
        Wgmma &op = q.queue[q.queued];
        op = lane[0]->op;
        for (int t = 0; t < 128; ++t) {
            const Wgmma &other = lane[t]->op;
            if (other.a != op.a || other.b != op.b || other.adds != op.adds) fail("wgmma: lanes disagree on an operand");
            op.a_registers[t] = other.a_registers[0];
        }
        if (op.a_registers[0]) {
            bool changed = false;
            for (int t = 0; t < 128; ++t) changed = changed || memcmp(q.fragment[t], op.a_registers[t], 16);
            if (changed && !q.fragment_fenced) fail("wgmma: fragments of a changed without wgmma.fence");
            for (int t = 0; t < 128; ++t) memcpy(q.fragment[t], op.a_registers[t], 16);
            q.fragment_fenced = false;
        }
        op.accumulator = accumulator(q, p, op, [](void *lane) { return static_cast<Arg *>(lane)->d; });
        op.group = q.committed, q.held[op.accumulator].group = q.committed, q.open = true;
        blk->launch->products += uint64_t(64 * 16) * op.n;
        if (q.queued == 0 && coin()) run(op, q.held[op.accumulator]);  // else in order, by the wait
        else ++q.queued;
    });
}
void wgmma_commit() {
    warpgroup(nullptr, 2, "wgmma.commit_group", [](void **, void *) { ++mine().committed, mine().open = false; });
}
void wgmma_wait(int pending) {
    warpgroup(&pending, 3, "wgmma.wait_group", [](void **p, void *) {
        Warpgroup &q = mine();
        int done = 0, due = q.committed - *static_cast<int *>(p[0]);
        for (; done < q.queued && q.queue[done].group < due; ++done) run(q.queue[done], q.held[q.queue[done].accumulator]);
        std::copy(q.queue + done, q.queue + q.queued, q.queue);
        q.queued -= done;
        for (int i = 0; i < q.accumulators; ++i) {
            Accumulator &x = q.held[i];
            if (!x.live || x.group >= due) continue;
            each_sum(x, [](float &has, float &sum) { has = sum; });
            x.live = q.fenced = false;
        }
    });
}
}  // namespace emu
