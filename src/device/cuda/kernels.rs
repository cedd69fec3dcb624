//! The kernel table: one typed row per kernel, the index of everything that runs on a GPU. A row makes an unsafe method
//! of [`Cuda`] that launches it, its symbol in the fatbins, and its symbol in the emulated build. All rows are loaded
//! when a GPU is opened, those `on sm_90a` where it is one; a test holds them to the text of `kernels/*.cu`. After `on
//! sm_90a` stand the bytes of dynamic shared memory.
//!
//! A row of several symbols is a family: a kernel for each type `T` of values (f32, bf16, f16), or for each `H` of 16
//! bits. Its method launches the kernel of the type that it is called with.

#[cfg(feature = "emu")]
use std::ffi::{c_char, c_void};

use super::Cuda;
use super::buffer::{Flag, In, Out};
use super::element::{Half, Scalar};
use super::generated::tiles;
use super::launch::{Argument, Arguments, Launch, Row};
use super::parameters::{AffineParameters, DataParameters, LayerSizes, PoolSizes, WeightParameters};
use super::tensor_map::TensorMap;
use crate::error::Result;

macro_rules! kernels {
    ($($(#[$doc:meta])* $name:ident $(<$T:ident: $bound:ident>)?: $($symbol:ident)|+ ($($arguments:tt)*) $(on sm_90a, $shared:expr)?;)*) => {
        table! { $($name: [$($symbol)|+] ($($arguments)*) [$($shared)?];)* }

        impl Cuda {
            $(method! { [$(#[$doc])*] $name [$(<$T: $bound>)?] [$($symbol)|+] ($($arguments)*) })*
        }
    };
}

/// The rows, the emulated kernels, and the number of each.
macro_rules! table {
    ($($name:ident: [$($symbol:ident)|+] $arguments:tt $shared:tt;)*) => {
        /// Every kernel.
        pub const TABLE: &[Row] = &[$($(row!($name, $symbol, $arguments, $shared)),+),*];

        #[cfg(feature = "emu")]
        unsafe extern "C" {
            $($(
                #[link_name = concat!("emu_", stringify!($symbol))]
                fn $symbol(grid: *const u32, block: *const u32, shared: u32, words: *mut *mut c_void, seed: u64) -> *const c_char;
            )+)*
        }

        #[allow(non_camel_case_types, dead_code)] // of a family, only the first is named
        enum Index { $($($symbol),+),* }
    };
}

macro_rules! row {
    ($name:ident, $symbol:ident, ($($argument:ident: $type:ty),* $(,)?), [$($shared:expr)?]) => {
        Row {
            name: stringify!($name),
            symbol: stringify!($symbol),
            arguments: &[$((stringify!($argument), stringify!($type))),*],
            sm90: [$(Some($shared),)? None][0],
            #[cfg(feature = "emu")]
            emulated: $symbol,
        }
    };
}

macro_rules! method {
    ([$($doc:tt)*] $name:ident [$(<$T:ident: $bound:ident>)?] [$first:ident $(| $other:ident)*] ($($argument:ident: $type:ty),* $(,)?)) => {
        $($doc)*
        ///
        /// # Safety
        /// Every buffer has the stated length, and every scalar is what that length was computed from.
        pub(crate) unsafe fn $name$(<$T: $bound>)?(&self, launch: Launch, $($argument: $type),*) -> Result<()> {
            let mut arguments = Arguments::default();
            $($argument.push(&mut arguments);)*
            let kernel = Index::$first as usize $(+ <$T as $bound>::ROW)?;
            // SAFETY: the types of the row are the kernel's (tested), the lengths are the caller's promise.
            unsafe { self.launch(kernel, launch, arguments) }
        }
    };
}

kernels! {
    /// `out[i]` = `values[i]` where its row of 16 is kept, else 0; out and values `[rows, 16]`, keep `[rows]`.
    copy_async: copy_async_u32(out: Out<'_, u32>, values: In<'_, u32>, keep: In<'_, u32>, rows: u32);
    /// What each lane gets of four matrices, plain and transposed; out `[32, 8]`, matrices `[4, 8, 4]`.
    ldmatrix: ldmatrix_u32(out: Out<'_, u32>, matrices: In<'_, u32>);
    /// d += a bᵀ in tf32; d `[16, 8]`, a `[16, 8]`, b `[8, 8]`.
    mma_tf32: mma_tf32_f32(d: Out<'_, f32>, a: In<'_, f32>, b: In<'_, f32>);
    /// d += a bᵀ in bf16, two to a word; d `[16, 8]`, a `[16, 16]`, b `[8, 16]`.
    mma_bf16: mma_bf16_f32(d: Out<'_, f32>, a: In<'_, u32>, b: In<'_, u32>);
    /// d += a bᵀ in f16, two to a word.
    mma_f16: mma_f16_f32(d: Out<'_, f32>, a: In<'_, u32>, b: In<'_, u32>);
    /// Pairs of x rounded to bf16, then to f16; out `[2, 32]`, x `[64]`.
    halves: halves_u32(out: Out<'_, u32>, x: In<'_, f32>);
    /// `values` from one warp to another; both `[rounds, 32]`.
    mbarrier: mbarrier_u32(out: Out<'_, u32>, values: In<'_, u32>, rounds: u32) on sm_90a, 0;
    /// The words of a box of a tensor, as they stand in shared memory; out `[words]`.
    tensor_load: tensor_load_u32(out: Out<'_, u32>, map: &TensorMap, words: u32, rank: u32, x: u32, y: u32, z: u32, w: u32) on sm_90a, tiles::PTX_BOX_SHARED;
    /// The same of pixels of images under one tap.
    image_load: image_load_u32(out: Out<'_, u32>, map: &TensorMap, words: u32, c: u32, w: u32, h: u32, image: u32, right: u32, down: u32) on sm_90a, tiles::PTX_BOX_SHARED;
    /// A box of a tensor = values `[words]`.
    tensor_store: tensor_store_u32(map: &TensorMap, values: In<'_, u32>, words: u32, x: u32, y: u32) on sm_90a, tiles::PTX_BOX_SHARED;
    /// The rows that lanes make of their words; out `[4, 8, 4]`, words `[32, 4]`.
    stmatrix: stmatrix_u32(out: Out<'_, u32>, words: In<'_, u32>) on sm_90a, 0;
    /// `out[i]` = i, of threads that share out their registers; out `[384]`.
    registers: registers_u32(out: Out<'_, u32>) on sm_90a, 0;
    /// d += a bᵀ in bf16; d `[64, 64]`, a `[2048]` and b `[8192]` words of shared memory.
    wgmma_bf16: wgmma_bf16_f32(d: Out<'_, f32>, a: In<'_, u32>, b: In<'_, u32>, majors: u32, swizzle: u32, a_leading: u32, a_stride: u32, b_leading: u32, b_stride: u32, a_step: u32, b_step: u32, steps: u32) on sm_90a, tiles::PTX_WGMMA_SHARED;
    /// The same with d `[64, 256]`, swizzled in 128 bytes.
    wgmma_wide_bf16: wgmma_wide_bf16_f32(d: Out<'_, f32>, a: In<'_, u32>, b: In<'_, u32>, steps: u32) on sm_90a, tiles::PTX_WGMMA_SHARED;
    /// In f16, d `[64, 64]`.
    wgmma_f16: wgmma_f16_f32(d: Out<'_, f32>, a: In<'_, u32>, b: In<'_, u32>, steps: u32) on sm_90a, tiles::PTX_WGMMA_SHARED;
    /// In bf16 with a in registers: the first 16 depths; a `[64, 8]` words, and more that are not read.
    wgmma_fragments_bf16: wgmma_fragments_bf16_f32(d: Out<'_, f32>, a: In<'_, u32>, b: In<'_, u32>) on sm_90a, tiles::PTX_WGMMA_SHARED;
    /// The sums of a thread after this many multiplications of ones in tf32 by each; out `[threads]`.
    peak_tf32: peak_tf32(out: Out<'_, f32>, steps: u32);
    /// The same in bf16.
    peak_bf16: peak_bf16(out: Out<'_, f32>, steps: u32);
    /// `out[j] = image + sigma · normal(seed, index, first + j)`; out `[copies, len]`, image `[len]`.
    perturb: perturb_f32(out: Out<'_, f32>, image: In<'_, f32>, copies: u32, len: u32, seed: u64, index: u32, first: u32, sigma: f32);
    /// Largest value of each window and its position; y and winners `[n, oh, ow, c]`, x `[n, h, w, c]`.
    max_pool<T: Scalar>: max_pool_f32 | max_pool_bf16 | max_pool_f16(y: Out<'_, T>, winners: Option<Out<'_, u32>>, x: In<'_, T>, p: PoolSizes);
    /// t = tx where the winners stand; t and winners `[n, oh, ow, c]`, tx `[n, h, w, c]`.
    max_pool_tangent: max_pool_tangent_f32(t: Out<'_, f32>, winners: In<'_, u32>, tx: In<'_, f32>, n: u32, h: u32, w: u32, c: u32, oh: u32, ow: u32);
    /// dx += dy where the winners stand; dx `[n, h, w, c]`, winners and dy `[n, oh, ow, c]`.
    max_pool_backward: max_pool_backward_f32(dx: Out<'_, f32>, winners: In<'_, u32>, dy: In<'_, f32>, p: PoolSizes);
    /// The mean of each window, or (`p.rows` = 0) of each cell of a grid; y `[n, oh, ow, c]`, x `[n, h, w, c]`.
    mean_pool<T: Scalar>: mean_pool_f32 | mean_pool_bf16 | mean_pool_f16(y: Out<'_, T>, x: In<'_, T>, p: PoolSizes);
    /// Its adjoint, added to dx.
    mean_pool_backward: mean_pool_backward_f32(dx: Out<'_, f32>, dy: In<'_, f32>, p: PoolSizes);
    /// y = f(x); `[len]`. In all rows of pointwise kernels an output may be an input.
    activation<T: Scalar>: activation_f32 | activation_bf16 | activation_f16(y: Out<'_, T>, x: In<'_, T>, kind: u32, len: u32);
    /// dx = f'(a) dy, or (`add`) dx += that; `[len]`.
    activation_backward: activation_backward_f32(dx: Out<'_, f32>, dy: In<'_, f32>, a: In<'_, f32>, kind: u32, len: u32, add: u32);
    /// dxt = f'(a) dyt + f''(a) at dy, or (`add`) dxt += that; `[len]`.
    activation_tangent_backward: activation_tangent_backward_f32(dxt: Out<'_, f32>, dyt: In<'_, f32>, dy: In<'_, f32>, at: In<'_, f32>, a: In<'_, f32>, kind: u32, len: u32, add: u32);
    /// y = a + b; `[len]`.
    sum<T: Scalar>: sum_f32 | sum_bf16 | sum_f16(y: Out<'_, T>, a: In<'_, T>, b: In<'_, T>, len: u32);
    /// y = scale x + shift by channel; y and x `[len]`, scale and shift `[c]`.
    scale_shift<T: Scalar>: scale_shift_f32 | scale_shift_bf16 | scale_shift_f16(y: Out<'_, T>, x: In<'_, T>, scale: In<'_, f32>, shift: In<'_, f32>, len: u32, c: u32);
    /// y = scale x by channel, or (`add`) y += that; y and x `[len]`, scale `[c]`.
    scale: scale_f32(y: Out<'_, f32>, x: In<'_, f32>, scale: In<'_, f32>, len: u32, c: u32, add: u32);
    /// Rows of x copied, or (`add`) added, to rows of y: each of `len` values, `y_stride` and `x_stride` apart.
    rows<T: Scalar>: rows_f32 | rows_bf16 | rows_f16(y: Out<'_, T>, x: In<'_, T>, rows: u32, len: u32, y_stride: u32, x_stride: u32, add: u32);
    /// Positions in the order of bands, or (`back`) from it; x and y `[n, rows, columns, c]`.
    bands<T: Scalar>: bands_f32 | bands_bf16 | bands_f16(y: Out<'_, T>, x: In<'_, T>, n: u32, rows: u32, columns: u32, c: u32, height: u32, down: u32, right: u32, back: u32, add: u32);
    /// y += the sum over rows of x, at a stride of `stride` values; y `[len]`.
    sum_rows: sum_rows_f32(y: Out<'_, f32>, x: In<'_, f32>, rows: u32, len: u32, stride: u32);
    /// Every stride-th position, channels in the middle; y `[n, oh, ow, oc]`, x `[n, h, w, c]`.
    shortcut<T: Scalar>: shortcut_f32 | shortcut_bf16 | shortcut_f16(y: Out<'_, T>, x: In<'_, T>, n: u32, h: u32, w: u32, c: u32, oh: u32, ow: u32, oc: u32, stride: u32);
    /// Its adjoint, added to dx.
    shortcut_backward: shortcut_backward_f32(dx: Out<'_, f32>, dy: In<'_, f32>, n: u32, h: u32, w: u32, c: u32, oh: u32, ow: u32, oc: u32, stride: u32);
    /// trace += mean over positions / uses, of sums by tile; trace `c` columns of `[n, d]`, parts as [`Cuda::conv`] writes.
    means: means_f32(trace: Out<'_, f32>, parts: In<'_, f64>, n: u32, positions: u32, c: u32, segments: u32, d: u32, uses: u32);
    /// sums = or (`add`) += values; `[len]`.
    add_trace: add_trace_f64(sums: Out<'_, f64>, values: In<'_, f32>, len: u64, add: u32);
    /// out = sums / over; `[len]`.
    mean_trace: mean_trace_f32(out: Out<'_, f32>, sums: In<'_, f64>, len: u64, over: f64);
    /// out = the least number of a value that is not finite, where it is below out; out `[1]`, values `[len]`.
    not_finite: not_finite_u64(out: Out<'_, u64>, values: In<'_, f32>, len: u64);
    /// Columns from `first` on of rows `[n, d]`; columns `[p, n]`.
    columns: columns_f64(columns: Out<'_, f64>, rows: In<'_, f32>, n: u32, d: u32, first: u32, p: u32);
    /// y = γ x̂ + β, μ and r to saved; y and x `[n, c]`, saved `[n, 2]`, gamma and beta `[c]`.
    layer_norm<T: Scalar>: layer_norm_f32 | layer_norm_bf16 | layer_norm_f16(y: Out<'_, T>, saved: Out<'_, f32>, x: In<'_, f32>, gamma: In<'_, f32>, beta: In<'_, f32>, n: u32, c: u32, eps: f32);
    /// t = γ x̂'; t, tx and x `[n, c]`.
    layer_norm_tangent: layer_norm_tangent_f32(t: Out<'_, f32>, tx: In<'_, f32>, x: In<'_, f32>, saved: In<'_, f32>, gamma: In<'_, f32>, n: u32, c: u32);
    /// dx += the adjoint of dy; dx, dy and x `[n, c]`.
    layer_norm_backward: layer_norm_backward_f32(dx: Out<'_, f32>, dy: In<'_, f32>, x: In<'_, f32>, saved: In<'_, f32>, gamma: In<'_, f32>, n: u32, c: u32);
    /// dxt += the derivative of that along tx and dyt; all `[n, c]`.
    layer_norm_tangent_backward: layer_norm_tangent_backward_f32(dxt: Out<'_, f32>, dyt: In<'_, f32>, dy: In<'_, f32>, tx: In<'_, f32>, x: In<'_, f32>, saved: In<'_, f32>, gamma: In<'_, f32>, n: u32, c: u32);
    /// dγ and dβ of chunks of `size` positions, as parts `[chunks, c, 2]`; dy and x `[n, c]`, saved `[n, 2]`.
    layer_norm_parameters: layer_norm_parameters_f32(parts: Out<'_, f32>, dy: In<'_, f32>, x: In<'_, f32>, saved: In<'_, f32>, n: u32, c: u32, size: u32);
    /// γ x̂ + β over each group of channels of an image, and its μ and r to saved; y and x `[n, positions, c]`, saved
    /// `[n, groups, 2]`, gamma and beta `[c]`.
    group_norm: group_norm_f32(y: Out<'_, f32>, saved: Out<'_, f32>, x: In<'_, f32>, gamma: In<'_, f32>, beta: In<'_, f32>, positions: u32, c: u32, groups: u32, eps: f32);
    /// t = γ x̂'.
    group_norm_tangent: group_norm_tangent_f32(t: Out<'_, f32>, tx: In<'_, f32>, x: In<'_, f32>, saved: In<'_, f32>, gamma: In<'_, f32>, positions: u32, c: u32, groups: u32);
    /// dx += the adjoint of dy.
    group_norm_backward: group_norm_backward_f32(dx: Out<'_, f32>, dy: In<'_, f32>, x: In<'_, f32>, saved: In<'_, f32>, gamma: In<'_, f32>, positions: u32, c: u32, groups: u32);
    /// dxt += the derivative of that along tx and dyt.
    group_norm_tangent_backward: group_norm_tangent_backward_f32(dxt: Out<'_, f32>, dyt: In<'_, f32>, dy: In<'_, f32>, tx: In<'_, f32>, x: In<'_, f32>, saved: In<'_, f32>, gamma: In<'_, f32>, positions: u32, c: u32, groups: u32);
    /// Σ dy x̂ and Σ dy by chunks of `size` of n positions; parts `[chunks, c, 2]`, dy and x `[n, c]`.
    group_norm_parameters: group_norm_parameters_f32(parts: Out<'_, f32>, dy: In<'_, f32>, x: In<'_, f32>, saved: In<'_, f32>, n: u32, positions: u32, c: u32, groups: u32, size: u32);
    /// y = or (`add`) += x g; y and x `[n, positions, c]` of `len` values, gate `[n, c]`.
    gate<T: Scalar>: gate_f32 | gate_bf16 | gate_f16(y: Out<'_, T>, x: In<'_, T>, gate: In<'_, T>, len: u32, positions: u32, c: u32, add: u32);
    /// dgate += Σ dy x over positions; dgate `[n, c]`, dy and x `[n, positions, c]`.
    gate_gradient: gate_gradient_f32(dgate: Out<'_, f32>, dy: In<'_, f32>, x: In<'_, f32>, positions: u32, c: u32);
    /// `y[i]` = the row of the table that `tokens[i]` names, NaN where it has none; y `[n, c]`, table `[rows, c]`.
    embedding: embedding_f32(y: Out<'_, f32>, tokens: In<'_, u32>, table: In<'_, f32>, n: u32, c: u32, rows: u32);
    /// The places of tokens in a stable ascending sort; both `[n]`.
    embedding_order: embedding_order_u32(order: Out<'_, u32>, tokens: In<'_, u32>, n: u32);
    /// The row of dtable that each token names += its row of dy; dtable `[rows, c]`, dy `[n, c]`, order and tokens `[n]`.
    embedding_gradient: embedding_gradient_f32(dtable: Out<'_, f32>, dy: In<'_, f32>, order: In<'_, u32>, tokens: In<'_, u32>, n: u32, c: u32, rows: u32);
    /// Σ x, or Σ (x − mean)² where there are means, of chunks of `size` positions; parts `[chunks, c]`, x `[n, c]`,
    /// mean `[c]`.
    batch_norm_sums: batch_norm_sums_f64(parts: Out<'_, f64>, x: In<'_, f32>, mean: Option<In<'_, f64>>, n: u32, c: u32, size: u32);
    /// out = the sums of parts over chunks / over; out `[c]`, parts `[chunks, c]`.
    batch_norm_fold: batch_norm_fold_f64(out: Out<'_, f64>, parts: In<'_, f64>, c: u32, chunks: u32, over: f64);
    /// y = γ x̂ + β; y and x `[n, c]`, moments `[2, c]`, gamma and beta `[c]`.
    batch_norm: batch_norm_f32(y: Out<'_, f32>, x: In<'_, f32>, moments: In<'_, f64>, gamma: In<'_, f32>, beta: In<'_, f32>, n: u32, c: u32, size: u32, eps: f32);
    /// Σ dy and Σ dy x̂ of chunks of `size` positions; parts `[chunks, 2, c]`, dy and x `[n, c]`.
    batch_norm_backward_sums: batch_norm_backward_sums_f64(parts: Out<'_, f64>, dy: In<'_, f32>, x: In<'_, f32>, moments: In<'_, f64>, n: u32, c: u32, size: u32, eps: f32);
    /// dx += the adjoint of dy; dx, dy and x `[n, c]`, moments and sums `[2, c]`, gamma `[c]`.
    batch_norm_backward: batch_norm_backward_f32(dx: Out<'_, f32>, dy: In<'_, f32>, x: In<'_, f32>, moments: In<'_, f64>, sums: In<'_, f64>, gamma: In<'_, f32>, n: u32, c: u32, size: u32, eps: f32);
    /// gradient += sums; `[c]`.
    batch_norm_gradient: batch_norm_gradient_f32(gradient: Out<'_, f32>, sums: In<'_, f64>, c: u32);
    /// running += momentum (factor moment − running); `[c]`.
    batch_norm_running: batch_norm_running_f32(running: Out<'_, f32>, moment: In<'_, f64>, c: u32, factor: f64, momentum: f32);
    /// u = momentum u + g, w −= rate u, of g = scale gradient + decay w; `[len]`, now `[4]`: scale, rate, corrections.
    sgd: sgd_f32(w: Out<'_, f32>, u: Out<'_, f32>, gradient: In<'_, f32>, now: In<'_, f32>, momentum: f32, decay: f32, len: u32);
    /// Adam's step, of the same.
    adam: adam_f32(w: Out<'_, f32>, first: Out<'_, f32>, second: Out<'_, f32>, gradient: In<'_, f32>, now: In<'_, f32>, beta1: f32, beta2: f32, epsilon: f32, decay: f32, len: u32);
    /// Σ losses, and how many rows of predictions are labels; scores `[2]`, losses `[n]`, the others `[n, width]`.
    score: score_f64(scores: Out<'_, f64>, losses: In<'_, f32>, predicted: In<'_, u32>, labels: In<'_, u32>, n: u32, width: u32);
    /// The loss of each row; losses and labels `[n]`, logits `[n, classes]`.
    cross_entropy: cross_entropy_f32(losses: Out<'_, f32>, logits: In<'_, f32>, labels: In<'_, u32>, n: u32, classes: u32, smoothing: f64);
    /// d = p − (1 − smoothing) onehot(label) − smoothing / classes; d and logits `[n, classes]`.
    cross_entropy_gradient: cross_entropy_gradient_f32(d: Out<'_, f32>, logits: In<'_, f32>, labels: In<'_, u32>, n: u32, classes: u32, smoothing: f64);
    /// Row i of d times `weights[i]`; d `[n, classes]`.
    weigh: weigh_f32(d: Out<'_, f32>, weights: In<'_, f32>, n: u32, classes: u32);
    /// (diag(p) − ppᵀ) t by rows; back, t and logits `[n, classes]`.
    cross_entropy_curvature: cross_entropy_curvature_f32(back: Out<'_, f32>, t: In<'_, f32>, logits: In<'_, f32>, n: u32, classes: u32);
    /// δ (δ·t) by rows; back, t and logits `[n, classes]`.
    cross_entropy_fisher: cross_entropy_fisher_f32(back: Out<'_, f32>, t: In<'_, f32>, logits: In<'_, f32>, labels: In<'_, u32>, n: u32, classes: u32, smoothing: f64);
    /// A draw of each row whose second moment is the curvature; d and logits `[n, classes]`.
    draw_curvature: draw_curvature_f32(d: Out<'_, f32>, logits: In<'_, f32>, n: u32, classes: u32, seed: u64, first: u32);
    /// The first of the largest of each row; predicted `[n]`, logits `[n, classes]`.
    largest: largest_u32(predicted: Out<'_, u32>, logits: In<'_, f32>, n: u32, classes: u32);
    /// The mean of binary cross-entropies of each row; losses `[n]`, logits and labels `[n, count]`.
    binary_cross_entropy: binary_cross_entropy_f32(losses: Out<'_, f32>, logits: In<'_, f32>, labels: In<'_, u32>, n: u32, count: u32);
    /// d = (p − y) / count; all `[n, count]`, of `len` values.
    binary_cross_entropy_gradient: binary_cross_entropy_gradient_f32(d: Out<'_, f32>, logits: In<'_, f32>, labels: In<'_, u32>, len: u32, count: u32);
    /// p (1 − p) t / count; all `[n, count]`, of `len` values.
    binary_cross_entropy_curvature: binary_cross_entropy_curvature_f32(back: Out<'_, f32>, t: In<'_, f32>, logits: In<'_, f32>, len: u32, count: u32);
    /// δ (δ·t) by rows; all `[n, count]`.
    binary_cross_entropy_fisher: binary_cross_entropy_fisher_f32(back: Out<'_, f32>, t: In<'_, f32>, logits: In<'_, f32>, labels: In<'_, u32>, n: u32, count: u32);
    /// A draw of each row whose second moment is the curvature; d and logits `[n, count]`, of `len` values.
    binary_draw: binary_draw_f32(d: Out<'_, f32>, logits: In<'_, f32>, len: u32, count: u32, seed: u64, first: u32);
    /// Whether each logit is above 0; both `[len]`.
    above_zero: above_zero_u32(predicted: Out<'_, u32>, logits: In<'_, f32>, len: u32);
    /// Copies of a row with `count` of its slots replaced; out `[copies, len]`, row `[len]`, slots `[places]`.
    replace_tokens: replace_tokens_u32(out: Out<'_, u32>, row: In<'_, u32>, slots: In<'_, u32>, copies: u32, len: u32, places: u32, count: u32, from: u32, ids: u32, seed: u64, index: u32, first: u32);
    /// O of each head, and P to saved; y `[n, t, heads·width]`, x of three times the channels, saved `[n, heads, t, t]`,
    /// mask `[n, t]`.
    attention<T: Scalar>: attention_f32 | attention_bf16 | attention_f16(y: Out<'_, T>, saved: Option<Out<'_, f32>>, x: In<'_, T>, mask: Option<In<'_, u32>>, table: Option<In<'_, f32>>, t: u32, heads: u32, width: u32, side: u32, rows: u32, columns: u32, down: u32, right: u32);
    /// O of each head of up to 32 channels, on tensor cores; as [`Cuda::attention`].
    attention_tiles_32<H: Half>: attention_tiles_32_bf16 | attention_tiles_32_f16(y: Out<'_, H>, x: In<'_, H>, mask: Option<In<'_, u32>>, table: Option<In<'_, f32>>, t: u32, heads: u32, width: u32, side: u32, rows: u32, columns: u32, down: u32, right: u32);
    /// The same of up to 64.
    attention_tiles_64<H: Half>: attention_tiles_64_bf16 | attention_tiles_64_f16(y: Out<'_, H>, x: In<'_, H>, mask: Option<In<'_, u32>>, table: Option<In<'_, f32>>, t: u32, heads: u32, width: u32, side: u32, rows: u32, columns: u32, down: u32, right: u32);
    /// The same of up to 128.
    attention_tiles_128<H: Half>: attention_tiles_128_bf16 | attention_tiles_128_f16(y: Out<'_, H>, x: In<'_, H>, mask: Option<In<'_, u32>>, table: Option<In<'_, f32>>, t: u32, heads: u32, width: u32, side: u32, rows: u32, columns: u32, down: u32, right: u32);
    /// O' = P'V + PV'.
    attention_tangent: attention_tangent_f32(ty: Out<'_, f32>, tx: In<'_, f32>, x: In<'_, f32>, saved: In<'_, f32>, t: u32, heads: u32, width: u32);
    /// The adjoint of the scores to ds `[n, heads, t, t]`, that of Q added to dx.
    attention_backward: attention_backward_f32(dx: Out<'_, f32>, ds: Out<'_, f32>, dy: In<'_, f32>, x: In<'_, f32>, saved: In<'_, f32>, t: u32, heads: u32, width: u32);
    /// Part 1: dK += squaresᵀ Q/√width, with x; part 2: dV += squaresᵀ dO, with dy; squares `[n, heads, t, t]`.
    attention_columns: attention_columns_f32(dx: Out<'_, f32>, squares: In<'_, f32>, with: In<'_, f32>, t: u32, heads: u32, width: u32, part: u32);
    /// Tangents of the weights and of the adjoint of the scores, and that adjoint, to pt, dst, ds; dQ' added to dxt.
    attention_tangent_backward: attention_tangent_backward_f32(dxt: Out<'_, f32>, pt: Out<'_, f32>, ds: Out<'_, f32>, dst: Out<'_, f32>, dyt: In<'_, f32>, dy: In<'_, f32>, tx: In<'_, f32>, x: In<'_, f32>, saved: In<'_, f32>, t: u32, heads: u32, width: u32);
    /// dtable += the sums of the squares `[n, heads, t, t]` over pairs of tokens as far apart; `[(2 side - 1)², heads]`.
    attention_table: attention_table_f32(dtable: Out<'_, f32>, squares: In<'_, f32>, n: u32, heads: u32, side: u32);
    /// y = act(scale z + shift + residual) or += z of z = W x + b; y and residual `[pixels, o]` of `oh × ow` an image, x
    /// `[.., h, w, c]`, weight `[count, r·s·c/groups]`, bias `[count]`, scale and shift `[o]`, rows `[count]`, parts
    /// `[pixels / GEMM_TILE, segments, o]`.
    conv: conv_f32(p: AffineParameters<'_, f32, f32, f32>);
    /// The same of operands rounded to tf32.
    conv_tf32: conv_tf32(p: AffineParameters<'_, f32, f32, f32>);
    /// The same of values and weights of 16 bits.
    conv_half<H: Half>: conv_bf16 | conv_f16(p: AffineParameters<'_, H, H, H>);
    /// The same with y and residual in f32.
    conv_half_wide<H: Half>: conv_bf16_wide | conv_f16_wide(p: AffineParameters<'_, H, H, f32>);
    /// y = act(scale z + shift + residual) of z = Wx + b, of 16 bits; x `[n, h, w, c]`, weight `[o, taps, c]`.
    conv_half_sm90<H: Half>: conv_bf16_sm90 | conv_f16_sm90(x: &TensorMap, weight: &TensorMap, p: AffineParameters<'_, H, H, H>) on sm_90a, tiles::SM90_SHARED;
    /// The same with y and residual in f32.
    conv_half_wide_sm90<H: Half>: conv_bf16_wide_sm90 | conv_f16_wide_sm90(x: &TensorMap, weight: &TensorMap, p: AffineParameters<'_, H, H, f32>) on sm_90a, tiles::SM90_SHARED;
    /// out = x rounded to 16 bits; `[len]`.
    narrow<H: Half>: narrow_bf16 | narrow_f16(out: Out<'_, H>, x: In<'_, f32>, len: u32);
    /// flag |= whether any of the values, which are bits of f16, is no number; `[len]`.
    beyond: beyond_f16(flag: Flag<'_>, values: In<'_, u16>, len: u32);
    /// The same as [`Cuda::conv`] of groups that have one input channel each.
    conv_depthwise<T: Scalar>: conv_depthwise_f32 | conv_depthwise_bf16 | conv_depthwise_f16(p: AffineParameters<'_, T, f32, T>);
    /// dx = or (`add`) += Wᵀ dz; dx `[pixels, c]`, dz `[.., oh, ow, o]`, weight and rows as of [`Cuda::conv`].
    conv_data: conv_data_f32(p: DataParameters<'_>);
    /// The same of groups that have one input channel each.
    conv_depthwise_data: conv_depthwise_data_f32(p: DataParameters<'_>);
    /// dzᵀ x and the sums of dz by chunks of `size` pixels, as parts `[chunks, count, r·s·c/groups + 1]`; dz `[pixels, o]`.
    conv_weight: conv_weight_f32(p: WeightParameters<'_>);
    /// The same of groups that have one input channel each.
    conv_depthwise_weight: conv_depthwise_weight_f32(p: WeightParameters<'_>);
    /// x̄ x̄ᵀ of each of the groups `sets` `[count]` by chunks of `size` pixels, as parts `[chunks, count, width, width]`; one `[4]`.
    input_moment: input_moment_f32(parts: Out<'_, f32>, x: In<'_, f32>, one: In<'_, f32>, sets: In<'_, u32>, count: u32, pixels: u32, l: LayerSizes, width: u32, size: u32);
    /// dz dzᵀ at rows by chunks of `size` pixels, within their groups, as parts `[chunks, count, stride]`; dz `[pixels, o]`.
    output_moment: output_moment_f32(parts: Out<'_, f32>, dz: In<'_, f32>, rows: Option<In<'_, u32>>, count: u32, pixels: u32, o: u32, groups: u32, stride: u32, size: u32);
    /// dw and db += parts by chunk; dw `[count, depth]`, db `[count]`, parts `[chunks, count, depth + 1]`.
    add_chunks: add_chunks_f32(dw: Out<'_, f32>, db: Option<Out<'_, f32>>, parts: In<'_, f32>, count: u32, depth: u32, chunks: u32);
    /// y = (b y + a x) / over; y and x `[len]`.
    combine: combine_f64(y: Out<'_, f64>, x: In<'_, f64>, a: f64, b: f64, over: f64, len: u32);
    /// Σ x y, or Σ x, of every chunk; out `[chunks]`, x and y `[len]`.
    dot: dot_f64(out: Out<'_, f64>, x: In<'_, f64>, y: Option<In<'_, f64>>, len: u32, chunk: u32);
    /// The largest |x| of every chunk; out `[chunks]`, x `[len]`.
    largest_value: largest_f64(out: Out<'_, f64>, x: In<'_, f64>, len: u32, chunk: u32);
    /// Σ x² of every chunk; out `[chunks]`, x `[len]`.
    squares: squares_f32(out: Out<'_, f64>, x: In<'_, f32>, len: u32, chunk: u32);
    /// weight `[count, depth]` and bias `[count]` = v / scale, row r from `starts[r]` on.
    to_rows: to_rows_f32(weight: Out<'_, f32>, bias: Option<Out<'_, f32>>, v: In<'_, f64>, starts: In<'_, u32>, count: u32, depth: u32, scale: f64);
    /// The way back, / n · scale.
    of_rows: from_rows_f64(v: Out<'_, f64>, weight: In<'_, f32>, bias: Option<In<'_, f32>>, starts: In<'_, u32>, count: u32, depth: u32, n: f64, scale: f64);
    /// `upper[i]` = #{v_j ≤ v_i}, `lower[i]` = #{v_j ≥ v_i}, `position[i]` in a stable ascending sort, from 1; all `[n]`.
    rank: rank_f64(upper: Out<'_, u32>, lower: Out<'_, u32>, position: Out<'_, u32>, values: In<'_, f64>, n: u32);
    /// Columns `[p, n]` padded to `[p, size]`, with the number of each row.
    sort_load: sort_load_f64(values: Out<'_, f64>, rows: Out<'_, u32>, columns: In<'_, f64>, p: u32, n: u32, size: u32);
    /// Sorts within tiles (`merge` = 0) or ends the merge of `merge` elements there; `[p, size]`.
    sort_tile: sort_tile_f64(values: Out<'_, f64>, rows: Out<'_, u32>, size: u32, merge: u32);
    /// One stage of the merge of `merge` elements, between elements at `distance`; `[p, size]`.
    sort_step: sort_step_f64(values: Out<'_, f64>, rows: Out<'_, u32>, p: u32, size: u32, merge: u32, distance: u32);
    /// Columns rounded to f32, `[n, 32]` of each 32, and twice the largest error at least; packed and columns `[p, n]`, slack `[p]`.
    pack: pack_f64(packed: Out<'_, f32>, slack: Out<'_, f32>, columns: In<'_, f64>, p: u32, n: u32);
    /// `distance[a, b] += Σ (x_b − x_a)²`, or (`fresh`) = that, of rows a from above, b from first; distance `[height, width]`, columns `[k, n]`.
    distance: distance_f64(distance: Out<'_, f64>, columns: In<'_, f64>, k: u32, n: u32, above: u32, height: u32, first: u32, width: u32, fresh: u32);
    /// Σ min(R_i, R_j) over the rows nearest to i by distance `[n, width]` and one more column, and their count; `[p, width]`.
    nearest: nearest_f64(sum: Out<'_, u64>, count: Out<'_, u32>, columns: In<'_, f64>, slack: In<'_, f32>, distance: In<'_, f64>, rank: In<'_, u32>, p: u32, n: u32, first: u32, width: u32, mean: u32);
    /// The `len` others of least distance, by row, and by it; list `[width, len]`, distance `[width, n]`.
    list: list_f64(list: Out<'_, u64>, distance: In<'_, f64>, n: u32, first: u32, len: u32);
    /// What `nearest` gives, from lists, and `tally += {looked at, started again}`; packed as of `pack`, distance `[width, n]`.
    pruned: pruned_f64(sum: Out<'_, u64>, count: Out<'_, u32>, tally: Out<'_, u64>, columns: In<'_, f64>, packed: In<'_, f32>, slack: In<'_, f32>, distance: In<'_, f64>, list: In<'_, u64>, rank: In<'_, u32>, p: u32, n: u32, first: u32, width: u32, len: u32, mean: u32);
    /// Where the count is not 1, of this many draws instead; distances stand `across` apart by other, `down` by row.
    drawn: drawn_f64(sum: Out<'_, u64>, count: Out<'_, u32>, columns: In<'_, f64>, distance: In<'_, f64>, rank: In<'_, u32>, p: u32, n: u32, first: u32, width: u32, across: u32, down: u32, seed: u64, draws: u32);
    /// The same in one column alone, sorted; values and rows `[p, size]`.
    nearest_sorted: nearest_sorted_f64(sum: Out<'_, u64>, count: Out<'_, u32>, values: In<'_, f64>, rows: In<'_, u32>, rank: In<'_, u32>, p: u32, n: u32, size: u32, mean: u32);
    /// Σ |R_(i+1) − R_i| along orders by chunks of positions; out `[orders, chunks]`, rank `[n]`, orders `[.., n]`.
    along: along_u64(out: Out<'_, u64>, rank: In<'_, u32>, orders: In<'_, u32>, n: u32, chunks: u32);
    /// Σ |a − b| within each run, and between it and the one before; out `[count, 4]`, ranks `[n]`, runs `[count + 1]`.
    runs: runs_u64(out: Out<'_, u64>, ranks: In<'_, u32>, runs: In<'_, u32>, n: u32, count: u32);
    /// Σ_i sum/count as {whole, low, high} of a number with 64 fractional bits; out `[p, 3]`, sum and count `[p, n]`.
    statistic: statistic_u64(out: Out<'_, u64>, sum: In<'_, u64>, count: In<'_, u32>, n: u32, add: u32);
    /// Number and A of the column of the largest A among those left; out `[4]`, sums `[p, 3]`, left `[p]`.
    best: best_u64(out: Out<'_, u64>, sums: In<'_, u64>, left: In<'_, u32>, p: u32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// `const uint32_t* values` of (`values`, `In<'_, u32>`), and of an option, which is null where there is none; `family`
    /// is the type that the kernel is for, of a family.
    fn declared(name: &str, kind: &str, family: &str) -> String {
        let c = |rust: &str| {
            match rust {
                "u16" => "uint16_t",
                "u32" => "uint32_t",
                "u64" => "uint64_t",
                "f32" => "float",
                "f64" => "double",
                "T" | "H" => family,
                other => panic!("{other} has no counterpart"),
            }
            .to_string()
        };
        if let Some(types) =
            kind.strip_prefix("AffineParameters<'_, ").and_then(|rest| rest.strip_suffix('>'))
        {
            let types: Vec<String> = types.split(", ").map(c).collect();
            return format!("const __grid_constant__ AffineParameters<{}> {name}", types.join(", "));
        }
        let structs = [
            ("TensorMap", "TensorMap"),
            ("DataParameters", "DataParameters"),
            ("WeightParameters", "WeightParameters"),
            ("LayerSizes", "Layer"),
            ("PoolSizes", "Pooling"),
        ];
        if let Some((_, of)) = structs.into_iter().find(|(of, _)| kind.contains(of)) {
            return format!("const __grid_constant__ {of} {name}");
        }
        if kind == "Flag<'_>" {
            return format!("uint32_t* {name}");
        }
        let kind = kind.strip_prefix("Option<").and_then(|rest| rest.strip_suffix('>')).unwrap_or(kind);
        let inner = |prefix: &str| kind.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('>'));
        match (inner("In<'_, "), inner("Out<'_, ")) {
            (Some(of), _) => format!("const {}* {name}", c(of)),
            (_, Some(of)) => format!("{}* {name}", c(of)),
            _ => format!("{} {name}", c(kind)),
        }
    }

    #[test]
    fn a_build_has_fatbins_of_less_than_16_mib_or_says_why_it_has_none() {
        use crate::device::cuda::generated::fatbins::{FATBINS, MISSING};
        assert!(FATBINS.iter().map(|(_, fatbin)| fatbin.len()).sum::<usize>() < 16 << 20);
        assert_eq!(FATBINS.is_empty(), !MISSING.is_empty());
    }

    #[test]
    fn rows_are_what_the_kernels_declare() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let mut text = String::new();
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "cu") {
                text += &std::fs::read_to_string(path).unwrap();
            }
        }
        for row in TABLE {
            let has = |name: &&str| row.symbol.split('_').any(|part| part == *name);
            let family = ["bf16", "f16"].into_iter().find(has).unwrap_or("float");
            let arguments: Vec<String> =
                row.arguments.iter().map(|(name, kind)| declared(name, kind, family)).collect();
            let signature = format!("\n{}({}) {{", row.symbol, arguments.join(", "));
            assert!(text.contains(&signature), "no kernel declares{signature}");
            assert!(text.contains(&format!("KERNEL({});", row.symbol)), "{} is not exported", row.symbol);
        }
        assert_eq!(text.matches("__global__").count(), TABLE.len(), "a kernel has no row");
    }
}
