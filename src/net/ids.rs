//! Numbers of nodes, layers, parameters and units.

macro_rules! number {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);
        impl $name {
            /// The number as an index.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

number! {
    /// A node, numbered in execution order.
    NodeId;
    /// A layer, numbered in module order (the order in which PyTorch lists modules).
    LayerId;
    /// A parameter tensor.
    ParamId;
    /// A unit: one output row of a layer, numbered in module order, then by row.
    UnitId;
}
