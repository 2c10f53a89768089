//! Nothing: this package is its examples. `cargo run --release --example shop` runs the shop, a whole
//! application; `--example callbacks` one that has every callback.
