//! The cases that come from tables: one program, with names to choose by, as in `cargo test --test tables -- net/vit`.

mod codec;
mod convex;
mod loaded_back;
mod net;
mod tokens;

use libtest_mimic::Arguments;

fn main() {
    let all = [codec::trials(), convex::trials(), loaded_back::trials(), net::trials(), tokens::trials()];
    let trials = all.into_iter().flatten().collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
