//! The main job: pay, pack, ship. Whoever has paid gets the goods, whatever happens in between.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shiftwork::{BoxError, Task, TaskError, Worker};

use crate::ledger::{Ledger, LedgerError, Order, State};
use crate::state::Shop;

/// What a customer sends.
#[derive(Debug, Deserialize)]
pub(crate) struct Wish {
    /// What.
    pub(crate) item: String,
    /// How many, at least one.
    pub(crate) quantity: u32,
}

/// Packs the goods of an order and brings them to the post. Doing it twice is doing it once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ship {
    /// Number of the order.
    pub(crate) order: i64,
}

impl Task for Ship {
    const NAME: &'static str = "ship";
    const IDEMPOTENT: bool = true;
    type Output = ();
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// The ledger does not take it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Paid, but not shipped.
    #[error("order {order} is paid and not shipped: {cause}")]
    NotShipped {
        /// Number of the order.
        order: i64,
        /// What became of the task.
        cause: TaskError,
    },
}

/// How often a parcel is packed again after its packer has died.
const ATTEMPTS: u32 = 5;

/// Carries out an order, from the payment to the shipment.
///
/// From the moment of payment on, this must not stop half-way: not when the customer hangs up,
/// not when the worker drains. The guard sees to both.
pub(crate) async fn place(shop: Arc<Shop>, wish: Wish) -> Result<Order, OrderError> {
    let worker = shop.worker.clone();
    // Closed never, so there is always a place in the end.
    let place = Arc::clone(&shop.counter).acquire_owned().await.ok();
    worker
        .guard(async move {
            let _place = place;
            let mut order = shop.ledger.pay(wish.item, wish.quantity).await?;
            // The bank takes its time.
            tokio::time::sleep(Duration::from_millis(50)).await;
            ship(&shop.worker, order.id).await?;
            shop.ledger.ship(order.id).await?;
            order.state = State::Shipped;
            Ok(order)
        })
        .await
}

/// How often a worker looks for orders whose worker was killed between payment and shipment.
const LOOK: Duration = Duration::from_secs(1);

/// Ships, from now on, what a worker that was killed had been paid for.
pub(crate) fn mind_the_dead(worker: &Worker, ledger: &Ledger) {
    let (own, ledger) = (worker.clone(), ledger.clone());
    worker.every(LOOK, move || {
        let (worker, ledger) = (own.clone(), ledger.clone());
        own.guard(async move {
            let result = finish_for_the_dead(&worker, &ledger).await;
            result.unwrap_or_else(|error| eprintln!("orders of the dead: {error}"));
        })
    });
}

async fn finish_for_the_dead(worker: &Worker, ledger: &Ledger) -> Result<(), OrderError> {
    for order in ledger.take_over().await? {
        ship(worker, order).await?;
        ledger.ship(order).await?;
        println!("order {order} is shipped: its worker had died");
    }
    Ok(())
}

async fn ship(worker: &Worker, order: i64) -> Result<(), OrderError> {
    let mut attempt = 1;
    loop {
        match worker.task(Ship { order }).await {
            Ok(()) => return Ok(()),
            Err(TaskError::WorkerDied { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(cause) => return Err(OrderError::NotShipped { order, cause }),
        }
    }
}

/// The other half, in a task worker.
pub(crate) async fn pack(_: Arc<Shop>, _: Ship) -> Result<(), BoxError> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(())
}
