//! Structs that kernels take by value, as `kernels/common/affine.h` and `kernels/pool.cu` declare them. None is a null
//! pointer.

use super::buffer::{Flag, In, Out};
use super::launch::{Argument, Arguments};

/// The sizes of a layer: h, w, c, oh, ow, o, r, s, stride, above, left, dilation, groups.
#[derive(Clone, Copy, Debug)]
pub struct LayerSizes(pub [u32; 13]);

/// Images and the windows of a pool: n, h, w, c, oh, ow, rows, columns, stride, above, left, counted rows, counted columns.
#[derive(Clone, Copy, Debug)]
pub struct PoolSizes(pub [u32; 13]);

/// z = Wx + b and its epilogue; X, W and Y are the types of the input, the weights and the result.
pub struct AffineParameters<'a, X, W, Y> {
    /// `[pixels, o]`.
    pub y: Out<'a, Y>,
    /// Sums for the means of units.
    pub parts: Option<Out<'a, f64>>,
    /// `[n, h, w, c]`.
    pub x: In<'a, X>,
    /// `[count, fan_in]`.
    pub weight: In<'a, W>,
    /// `[count]`.
    pub bias: Option<In<'a, f32>>,
    /// Scale and shift, `[o]` each.
    pub affine: [Option<In<'a, f32>>; 2],
    /// `[pixels, o]`.
    pub residual: Option<In<'a, Y>>,
    /// The selected rows, `[count]`, ascending.
    pub rows: Option<In<'a, u32>>,
    /// Notes that a value of y is none that its type has.
    pub overflow: Option<Flag<'a>>,
    /// Those of the layer.
    pub layer: LayerSizes,
    /// count, pixels, segments, activation, add.
    pub numbers: [u32; 5],
}

/// dx = W^T dz.
pub struct DataParameters<'a> {
    /// `[n, h, w, c]`.
    pub dx: Out<'a, f32>,
    /// `[n, oh, ow, o]`.
    pub dz: In<'a, f32>,
    /// `[count, fan_in]`.
    pub weight: In<'a, f32>,
    /// The selected rows, `[count]`, ascending.
    pub rows: Option<In<'a, u32>>,
    /// Those of the layer.
    pub layer: LayerSizes,
    /// count, pixels, add.
    pub numbers: [u32; 3],
}

/// dW = dz^T x by chunks.
pub struct WeightParameters<'a> {
    /// `[chunks, count, fan_in + 1]`.
    pub parts: Out<'a, f32>,
    /// `[n, oh, ow, o]`.
    pub dz: In<'a, f32>,
    /// `[n, h, w, c]`.
    pub x: In<'a, f32>,
    /// The selected rows, `[count]`, ascending.
    pub rows: Option<In<'a, u32>>,
    /// Those of the layer.
    pub layer: LayerSizes,
    /// count, pixels, size.
    pub numbers: [u32; 3],
}

/// Adds a struct of addresses and then numbers of 32 bits.
fn push(to: &mut Arguments, addresses: &[u64], numbers: impl IntoIterator<Item = u32>) {
    let mut words = addresses.to_vec();
    let numbers: Vec<u32> = numbers.into_iter().collect();
    let word = |pair: &[u32]| u64::from(pair[0]) | u64::from(pair.get(1).copied().unwrap_or(0)) << 32;
    words.extend(numbers.chunks(2).map(word));
    to.push(&words);
    to.addresses.extend(addresses.iter().filter(|&&address| address != 0));
}

fn address<T>(of: Option<In<'_, T>>) -> u64 {
    of.map_or(0, |of| of.address)
}

impl Argument for LayerSizes {
    fn push(self, to: &mut Arguments) {
        push(to, &[], self.0);
    }
}

impl Argument for PoolSizes {
    fn push(self, to: &mut Arguments) {
        push(to, &[], self.0);
    }
}

impl<X, W, Y> Argument for AffineParameters<'_, X, W, Y> {
    fn push(self, to: &mut Arguments) {
        let ([scale, shift], parts) = (self.affine, self.parts.map_or(0, |parts| parts.address));
        let [bias, scale, shift] = [self.bias, scale, shift].map(address);
        let residual = address(self.residual);
        let (y, x, weight, rows) = (self.y.address, self.x.address, self.weight.address, address(self.rows));
        let overflow = self.overflow.map_or(0, |flag| flag.address);
        let addresses = [y, parts, x, weight, bias, scale, shift, residual, rows, overflow];
        push(to, &addresses, self.layer.0.into_iter().chain(self.numbers));
    }
}

impl Argument for DataParameters<'_> {
    fn push(self, to: &mut Arguments) {
        let addresses = [self.dx.address, self.dz.address, self.weight.address, address(self.rows)];
        push(to, &addresses, self.layer.0.into_iter().chain(self.numbers));
    }
}

impl Argument for WeightParameters<'_> {
    fn push(self, to: &mut Arguments) {
        let addresses = [self.parts.address, self.dz.address, self.x.address, address(self.rows)];
        push(to, &addresses, self.layer.0.into_iter().chain(self.numbers));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn structs_are_what_the_kernels_declare() {
        let header = include_str!("../../../kernels/common/affine.h");
        for declared in [
            "    uint32_t h, w, c, oh, ow, o, r, s, stride, above, left, dilation, groups;\n",
            "    Y* y;\n    double* parts;\n    const X* x;\n    const W* weight;\n    \
             const float *bias, *scale, *shift;\n    const Y* residual;\n    const uint32_t* rows;\n    uint32_t* overflow;\n    Layer layer;\n    uint32_t count, pixels, segments, activation, add;\n};",
            "    float* dx;\n    const float *dz, *weight;\n    const uint32_t* rows;\n    Layer layer;\n    \
             uint32_t count, pixels, add;\n};",
            "    float* parts;\n    const float *dz, *x;\n    const uint32_t* rows;\n    Layer layer;\n    \
             uint32_t count, pixels, size;\n};",
        ] {
            assert!(header.contains(declared), "{declared}");
        }
        let pool = include_str!("../../../kernels/pool.cu");
        let declared =
            pool.split("struct Pooling {").nth(1).and_then(|rest| rest.split("};").next()).unwrap();
        let names: Vec<&str> = declared
            .lines()
            .flat_map(|line| {
                line.split("//").next().unwrap().trim().trim_start_matches("uint32_t").split(',')
            })
            .map(|name| name.trim().trim_end_matches(';'))
            .filter(|name| !name.is_empty())
            .collect();
        let expected = "n h w c oh ow rows columns stride above left counted_rows counted_columns";
        assert_eq!(names.join(" "), expected);
    }
}
