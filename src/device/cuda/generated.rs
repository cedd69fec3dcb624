//! What build.rs generates.

/// The launch shapes that kernels and host share, from `kernels/tiles.h`.
pub mod tiles {
    include!(concat!(env!("OUT_DIR"), "/tiles.rs"));
}

/// The compiled kernels, or the reason why there are none.
pub mod fatbins {
    include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));
}
