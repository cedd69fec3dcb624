//! What the caller says about a model where its tensors and its config do not.

use crate::names::names;

/// What the caller says about a model; each choice wins over the config.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choices {
    /// The architecture or family.
    pub arch: Option<String>,
    /// The number of attention heads of a transformer.
    pub heads: Option<usize>,
    /// The stem of a ResNet.
    pub stem: Option<Stem>,
}

/// How a ResNet begins: the stride of its first filter, and whether 3×3 max pooling of stride 2 follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stem {
    /// Stride 1, no pooling.
    Stride1,
    /// Stride 1, then pooling.
    Stride1Pool,
    /// Stride 2, no pooling.
    Stride2,
    /// Stride 2, then pooling.
    Stride2Pool,
}

names!(Stem {
    Stride1 = "stride1": "stride 1, no pooling",
    Stride1Pool = "stride1+pool": "stride 1, then pooling",
    Stride2 = "stride2": "stride 2, no pooling",
    Stride2Pool = "stride2+pool": "stride 2, then pooling"
});

impl Stem {
    /// The stride of the first filter.
    pub fn stride(self) -> usize {
        match self {
            Stem::Stride1 | Stem::Stride1Pool => 1,
            Stem::Stride2 | Stem::Stride2Pool => 2,
        }
    }

    /// Whether the image is pooled before the first block.
    pub fn pool(self) -> bool {
        match self {
            Stem::Stride1 | Stem::Stride2 => false,
            Stem::Stride1Pool | Stem::Stride2Pool => true,
        }
    }
}
