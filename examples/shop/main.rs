//! A small shop: takes payment, then ships, so that a lost half can be seen.
//!
//! ```text
//! cargo run --release --example shop                   # serve, in the foreground
//! cargo run --release --example shop -- start -d       # in the background
//! cargo run --release --example shop -- reload         # new code, new settings, same clients
//! cargo run --release --example shop -- stop
//! ```
//!
//! Then open <http://127.0.0.1:9501>, or `nc 127.0.0.1 9502` for the till.

mod fault;
mod feed;
mod keeper;
mod ledger;
mod orders;
mod routes;
mod settings;
mod state;
mod till;

use std::process::ExitCode;

use shiftwork::{Http, Server, Tcp};

use crate::settings::App;
use crate::state::Shop;

fn main() -> ExitCode {
    Server::new("shop")
        .app::<App>()
        .default_setting("server.task_worker_num", 2)
        .default_setting("server.health", "/health")
        .default_setting("listen.web.address", "127.0.0.1:9501")
        .default_setting("listen.till.address", "127.0.0.1:9502")
        .release(|boot| boot.app::<App>().release.clone())
        .preload(|boot| boot.app::<App>().fault.in_preload())
        .on_worker_start(|worker, _| Shop::open(worker))
        .listen(
            "web",
            Http::new(routes::all)
                .error_headers(|shop| shop.marks())
                .websocket("echo", |_| feed::Echo)
                .websocket("feed", feed::Feed::of),
        )
        .listen("till", Tcp::lines(|_| till::Till))
        .on_task(orders::pack)
        .run()
}
