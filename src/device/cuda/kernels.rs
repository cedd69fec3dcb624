//! The kernel table: one typed row per kernel, the index of everything that runs on a GPU. A row makes an unsafe method
//! of [`Cuda`] that launches it, its symbol in the fatbins, and its symbol in the emulated build. All rows are loaded
//! when a GPU is opened; a test holds them to the text of `kernels/*.cu`.

use super::{Argument, Cuda, In, Launch, Out};
use crate::Result;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The operation.
    pub name: &'static str,
    /// The kernel's symbol.
    pub symbol: &'static str,
    /// Names and types of its arguments, in order.
    pub arguments: &'static [(&'static str, &'static str)],
}

/// What a kernel is in the emulated build: grid, block, arguments, seed; an error text or null.
#[cfg(feature = "emu")]
pub(super) type Emulated =
    unsafe extern "C" fn(*const u32, *const u32, *mut *mut std::ffi::c_void, u64) -> *const std::ffi::c_char;

macro_rules! kernels {
    ($($(#[$doc:meta])* $name:ident: $symbol:ident($($argument:ident: $type:ty),* $(,)?);)*) => {
        /// Every kernel.
        pub const TABLE: &[Row] = &[$(Row {
            name: stringify!($name),
            symbol: stringify!($symbol),
            arguments: &[$((stringify!($argument), stringify!($type))),*],
        }),*];

        #[cfg(feature = "emu")]
        unsafe extern "C" {
            $(#[link_name = concat!("emu_", stringify!($symbol))]
            fn $symbol(
                grid: *const u32,
                block: *const u32,
                words: *mut *mut std::ffi::c_void,
                seed: u64,
            ) -> *const std::ffi::c_char;)*
        }

        #[cfg(feature = "emu")]
        pub(super) const EMULATED: &[Emulated] = &[$($symbol),*];

        #[allow(non_camel_case_types)]
        enum Index { $($name),* }

        impl Cuda {
            $($(#[$doc])*
            ///
            /// # Safety
            /// Every buffer has the stated length, and every scalar is what that length was computed from.
            pub(crate) unsafe fn $name(&self, launch: Launch, $($argument: $type),*) -> Result<()> {
                // SAFETY: the types of the row are the kernel's (tested), the lengths are the caller's promise.
                unsafe { self.launch(Index::$name as usize, launch, &mut [$(Argument::word($argument)),*]) }
            }
            )*
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
    /// `out[j] = image + sigma · normal(seed, index, first + j)`; out `[copies, len]`, image `[len]`.
    perturb: perturb_f32(out: Out<'_, f32>, image: In<'_, f32>, copies: u32, len: u32, seed: u64, index: u32, first: u32, sigma: f32);
    /// Largest value of each window and its position; y and winners `[n, oh, ow, c]`, x `[n, h, w, c]`.
    max_pool: max_pool_f32(y: Out<'_, f32>, winners: Out<'_, u32>, x: In<'_, f32>, n: u32, h: u32, w: u32, c: u32, oh: u32, ow: u32, window: u32, stride: u32, padding: u32);
    /// t = tx where the winners stand; t and winners `[n, oh, ow, c]`, tx `[n, h, w, c]`.
    max_pool_tangent: max_pool_tangent_f32(t: Out<'_, f32>, winners: In<'_, u32>, tx: In<'_, f32>, n: u32, h: u32, w: u32, c: u32, oh: u32, ow: u32);
    /// dx += dy where the winners stand; dx `[n, h, w, c]`, winners and dy `[n, oh, ow, c]`.
    max_pool_backward: max_pool_backward_f32(dx: Out<'_, f32>, winners: In<'_, u32>, dy: In<'_, f32>, n: u32, h: u32, w: u32, c: u32, oh: u32, ow: u32, window: u32, stride: u32, padding: u32);
    /// The mean of each window, or (`window` = 0) of each cell of a grid; y `[n, oh, ow, c]`, x `[n, h, w, c]`.
    mean_pool: mean_pool_f32(y: Out<'_, f32>, x: In<'_, f32>, n: u32, h: u32, w: u32, c: u32, oh: u32, ow: u32, window: u32, stride: u32, padding: u32);
    /// Its adjoint, added to dx.
    mean_pool_backward: mean_pool_backward_f32(dx: Out<'_, f32>, dy: In<'_, f32>, n: u32, h: u32, w: u32, c: u32, oh: u32, ow: u32, window: u32, stride: u32, padding: u32);
    /// `upper[i]` = #{v_j ≤ v_i}, `lower[i]` = #{v_j ≥ v_i}, `position[i]` in a stable ascending sort, from 1; all `[n]`.
    rank: rank_f64(upper: Out<'_, u32>, lower: Out<'_, u32>, position: Out<'_, u32>, values: In<'_, f64>, n: u32);
    /// Columns `[p, n]` padded to `[p, size]`, with the number of each row.
    sort_load: sort_load_f64(values: Out<'_, f64>, rows: Out<'_, u32>, columns: In<'_, f64>, p: u32, n: u32, size: u32);
    /// Sorts within tiles (`merge` = 0) or ends the merge of `merge` elements there; `[p, size]`.
    sort_tile: sort_tile_f64(values: Out<'_, f64>, rows: Out<'_, u32>, size: u32, merge: u32);
    /// One stage of the merge of `merge` elements, between elements `apart`; `[p, size]`.
    sort_step: sort_step_f64(values: Out<'_, f64>, rows: Out<'_, u32>, p: u32, size: u32, merge: u32, apart: u32);
    /// `distance[j, i] += (x_i − x_j)²`; distance `[n, n]`, column `[n]`.
    distance: distance_f64(distance: Out<'_, f64>, column: In<'_, f64>, n: u32);
    /// Σ min(R_i, R_j) over the rows nearest to i by distance and one more column, and their count; `[p, n]`.
    nearest: nearest_f64(sum: Out<'_, u64>, count: Out<'_, u32>, columns: In<'_, f64>, distance: In<'_, f64>, rank: In<'_, u32>, p: u32, n: u32, mean: u32);
    /// The same in one column alone, sorted; values and rows `[p, size]`.
    nearest_sorted: nearest_sorted_f64(sum: Out<'_, u64>, count: Out<'_, u32>, values: In<'_, f64>, rows: In<'_, u32>, rank: In<'_, u32>, p: u32, n: u32, size: u32, mean: u32);
    /// Σ_i sum/count as {whole, low, high} of a number with 64 fractional bits; out `[p, 3]`, sum and count `[p, n]`.
    statistic: statistic_u64(out: Out<'_, u64>, sum: In<'_, u64>, count: In<'_, u32>, n: u32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// `const uint32_t* values` of (`values`, `In<'_, u32>`).
    fn declared(name: &str, kind: &str) -> String {
        let c = |rust: &str| match rust {
            "u32" => "uint32_t",
            "u64" => "uint64_t",
            "f32" => "float",
            "f64" => "double",
            other => panic!("{other} has no counterpart"),
        };
        let inner = |prefix: &str| kind.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('>'));
        match (inner("In<'_, "), inner("Out<'_, ")) {
            (Some(of), _) => format!("const {}* {name}", c(of)),
            (_, Some(of)) => format!("{}* {name}", c(of)),
            _ => format!("{} {name}", c(kind)),
        }
    }

    #[test]
    fn rows_are_what_the_kernels_declare() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let mut text = String::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "cu") {
                text += &std::fs::read_to_string(path).unwrap();
            }
        }
        for row in TABLE {
            let arguments: Vec<String> =
                row.arguments.iter().map(|(name, kind)| declared(name, kind)).collect();
            let signature = format!("\n{}({}) {{", row.symbol, arguments.join(", "));
            assert!(text.contains(&signature), "no kernel declares{signature}");
            assert!(text.contains(&format!("KERNEL({});", row.symbol)), "{} is not exported", row.symbol);
        }
        assert_eq!(text.matches("__global__").count(), TABLE.len(), "a kernel has no row");
    }
}
