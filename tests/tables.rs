//! The cases that come from tables: one program, with names to choose by, as in `cargo test --test tables -- net/vit`.

mod codec;
mod convex;
mod loaded_back;
mod net;

use libtest_mimic::Arguments;

fn main() {
    let trials = [codec::trials(), convex::trials(), loaded_back::trials(), net::trials()]
        .into_iter()
        .flatten()
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
